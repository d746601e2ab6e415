"""Models by name: shapes, repeatable initial weights, public statistics, refusals."""

import copy

import numpy as np
import pytest
import torch

from securekd.errors import ModelError
from securekd.models.builtin import Centre
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape
from securekd.settings.models import TINY_VIT, Model

IMAGE = InputShape("image", (1, 8, 8), 10)
COLOUR = InputShape("image", (3, 12, 16), 5)
TEXT = InputShape("text", (9,), 4, vocabulary=30)
TABLE = InputShape("tabular", (6,), 3)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(kind, shape) for kind in ("logistic", "mlp") for shape in (IMAGE, COLOUR, TEXT, TABLE)]
    + [("cnn", IMAGE), ("cnn", COLOUR)],
)
def test_every_model_gives_logits_for_every_shape_it_takes(kind: str, shape: InputShape) -> None:
    network = build(Model(kind=kind), shape, seed=0)
    assert network(probe(shape, 4)).shape == (4, shape.classes)


def test_initial_weights_follow_the_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat([p.flatten() for p in build(TINY_VIT, IMAGE, seed).parameters()])

    first = weights(1)
    torch.manual_seed(99)
    torch.rand(10)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_building_leaves_torchs_own_randomness_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(TINY_VIT, IMAGE, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_public_statistics_centre_the_transfer_set() -> None:
    transfer = np.random.default_rng(0).random((200, 1, 8, 8), dtype=np.float32)
    centred = Centre(IMAGE.with_statistics(transfer))(torch.tensor(transfer))
    assert float(centred.mean(0).abs().max()) < 1e-5
    assert float(centred.square().mean()) == pytest.approx(1.0, abs=1e-4)


def test_without_statistics_pixels_are_mapped_to_the_symmetric_interval() -> None:
    centred = Centre(IMAGE)(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8))
    assert centred[:, 0, 0, 0].tolist() == [-1.0, 0.0, 1.0]


def test_padding_does_not_change_a_text() -> None:
    network = build(Model(kind="mlp"), TEXT, seed=0)
    short = torch.tensor([[3, 4, 5, 0, 0, 0, 0, 0, 0]])
    shorter = copy.deepcopy(short)[:, :3]
    torch.testing.assert_close(network(short), network(shorter))


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (Model(kind="resnet"), IMAGE, "no model is called 'resnet'"),
        (Model(kind="mlp", options={"hiden": 3}), IMAGE, "hiden"),
        (Model(kind="cnn"), TEXT, "this model sees images"),
        (Model(kind="cnn", options={"layers": 4}), IMAGE, "need images of 16 pixels"),
        (Model(kind="transformers"), IMAGE, "either path"),
        (Model(kind="transformers", options={"path": "nowhere"}), IMAGE, "no model folder at nowhere"),
        (Model(kind="transformers", options={"model_type": "nothing"}), IMAGE, "no model_type 'nothing'"),
        (Model(kind="transformers", options={"model_type": "bert"}), IMAGE, "cannot build 'bert'"),
        (Model(kind="transformers", options={"model_type": "vit"}), TABLE, "the data is tabular"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(model: Model, shape: InputShape, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(model, shape, seed=0)
    assert message in str(caught.value)
