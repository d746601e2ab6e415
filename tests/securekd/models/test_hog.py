"""Oriented gradients: what they see, that they stay fixed, and that everything that takes a model takes them."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad

from securekd.errors import ModelError
from securekd.learning.dp.suited import refuse_unsuited
from securekd.models.folder import load_student, save_model
from securekd.models.frozen import split_frozen
from securekd.models.hog import BINS, Hog
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.settings.models import Model

DIGIT = InputShape("image", (1, 28, 28), 10)
COLOUR = InputShape("image", (3, 16, 37), 5)
HEADS = (Model(kind="hog"), Model(kind="hog", options={"hidden": 8}))


def images(count: int, *dimensions: int) -> Tensor:
    return torch.rand((count, *dimensions), generator=torch.Generator().manual_seed(3))


def slow_twin(x: Tensor) -> Tensor:
    """The same for 28 by 28 pixels, bin by bin: each gradient is put where it belongs."""
    row = torch.tensor([[1.0, 4, 6, 4, 1]])
    x = 0.5 * x + 0.5 * conv2d(pad(x, (2,) * 4), (row.T @ row / 256)[None, None])
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None] / 4
    padded = pad(x, (1,) * 4)
    across, down = conv2d(padded, sobel), conv2d(padded, sobel.transpose(2, 3))
    angle = torch.atan2(down, across) / (2 * math.pi) % 1 * BINS
    low = angle.floor()
    weight, first, length = angle - low, low.long() % BINS, (across**2 + down**2).sqrt()
    histogram = torch.zeros(len(x), BINS, 28, 28)
    histogram.scatter_add_(1, first, length * (1 - weight))
    histogram.scatter_add_(1, (first + 1) % BINS, length * weight)
    grids = []
    for step in (4, 7):
        cell = avg_pool2d(pad(histogram, (step // 2,) * 4), 2 * step, step)
        energy = 9 * avg_pool2d(pad(cell.pow(2).sum(1, keepdim=True), (1,) * 4), 3, 1)
        grids.append((cell / (energy + 1e-3).sqrt()).flatten(1))
    features = torch.cat(grids, 1).sqrt()
    return features / features.norm(dim=1, keepdim=True)


def test_a_slow_twin_agrees() -> None:
    x = images(7, 1, 28, 28)
    torch.testing.assert_close(Hog()(x), slow_twin(x), rtol=1e-3, atol=1e-4)


def test_features_have_unit_length_and_a_blank_image_has_none() -> None:
    torch.testing.assert_close(Hog()(images(4, 3, 20, 31)).norm(dim=1), torch.ones(4))
    assert torch.equal(Hog()(torch.zeros(2, 1, 28, 28)).abs().sum(), torch.tensor(0.0))


def test_colours_count_as_their_mean() -> None:
    x = images(3, 3, 16, 16)
    torch.testing.assert_close(Hog()(x), Hog()(x.mean(1, keepdim=True)))


def test_a_quarter_turn_moves_the_directions_by_a_quarter() -> None:
    x = images(2, 1, 28, 28)
    one, turned = (Hog()(a)[:, : BINS * 49].view(2, BINS, 7, 7) for a in (x, x.rot90(1, (2, 3))))
    inner = torch.linalg.vector_norm(turned - one.rot90(1, (2, 3)).roll(-BINS // 4, 1))
    assert inner < 1e-3 * torch.linalg.vector_norm(one)


@pytest.mark.parametrize("model", HEADS)
def test_dp_sgd_takes_the_head_in_closed_form(model: Model) -> None:
    network = build(model, DIGIT, seed=0).train()
    refuse_unsuited(network, images(3, 1, 28, 28))
    split = split_frozen(network.train())
    assert split is not None
    assert [type(layer) for layer in split.features] == [Hog]
    assert not list(Hog().parameters())
    assert len([layer for layer in split.head if type(layer) is nn.Linear]) == (2 if "hidden" in model.options else 1)


@pytest.mark.parametrize("model", HEADS)
@pytest.mark.parametrize("shape", [DIGIT, COLOUR])
def test_a_saved_model_is_loaded(model: Model, shape: InputShape, tmp_path: Path) -> None:
    network, x = build(model, shape, seed=1).eval(), images(5, *shape.dimensions)
    save_model(network, model, shape, tuple("abcdefghij"[: shape.classes]), tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(load_student(tmp_path / "model")(x), network(x))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (InputShape("image", (1, 15, 28), 10), "needs images of 16 pixels"),
        (InputShape("tabular", (6,), 3), "the data is tabular"),
    ],
)
def test_what_has_no_cells_is_refused(shape: InputShape, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(Model(kind="hog"), shape, seed=0)
