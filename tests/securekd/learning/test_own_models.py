"""Models as people write them, from one end of a run to the other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.laboratory.plan import make_plan
from securekd.laboratory.runner import run
from securekd.models.folder import load_student
from securekd.models.shape import InputShape
from securekd.settings.experiment import Experiment
from tests.securekd.conftest import small


class Written(nn.Module):
    """A norm, an activation in place, a residual in place, and more than logits in the end."""

    def __init__(self, shape: InputShape, norm: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), norm, nn.ReLU(inplace=True))
        self.more = nn.Linear(16, 16)
        self.head = nn.Linear(16, shape.classes)

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = self.body(x)
        again = self.more(h)
        again += h
        return {"logits": self.head(again), "hidden": h}


def layer_normed(shape: InputShape) -> nn.Module:
    """For DP-SGD."""
    return Written(shape, nn.LayerNorm(16))


def batch_normed(shape: InputShape) -> nn.Module:
    """For training without privacy."""
    return Written(shape, nn.BatchNorm1d(16))


def kind(name: str) -> str:
    return f"tests.securekd.learning.test_own_models:{name}"


def federation(client: str, taught: str, **changes: Any) -> Experiment:
    """Three clients of 33 rows, 65 public ones with labels: one row more than a batch holds, for client and student."""
    settings = {
        "data": {"transfer": 65, "test": 40, "private": 99},
        "clients": {"count": 3, "models": [kind(client)]},
        "student": {"model": kind(taught), "epochs": 2},
    }
    return small(**settings | {name: settings.get(name, {}) | change for name, change in changes.items()})


def test_a_run_with_models_in_place_that_give_dicts(out: Path) -> None:
    run(federation("layer_normed", "batch_normed", centralized={"model": kind("layer_normed")}), out)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        saved = load_student(out / "student", [kind("batch_normed")])(x)
    assert saved.shape == (3, 10)


def test_a_run_without_privacy_in_which_every_last_batch_would_be_of_one_row(out: Path) -> None:
    result = run(federation("batch_normed", "batch_normed", privacy={"dp_sgd": False}), out)
    assert [local.examples for local in result.utility.locals] == [33] * 3
    statistics = load_student(out / "student", [kind("batch_normed")]).state_dict()
    assert int(statistics["body.2.num_batches_tracked"]) == 2  # one batch of 65 in each epoch of a round
    assert statistics["body.2.running_var"].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"plain_batch_size": 1}, "privacy": {"dp_sgd": False}}, "the batch size is 1"),
        ({"student": {"batch_size": 1}, "centralized": {"model": kind("layer_normed")}}, "the batch size is 1"),
        ({}, "or set centralized.model"),
    ],
)
def test_batch_norm_where_it_cannot_be_is_refused_before_anything_is_trained(changes: dict, said: str) -> None:
    client = "batch_normed" if "privacy" in changes else "layer_normed"
    with pytest.raises(ModelError, match=said) as caught:
        make_plan(federation(client, "batch_normed", **changes))
    assert "group or layer norm" in str(caught.value)
