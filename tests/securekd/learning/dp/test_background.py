"""Training beside a background: public rows cost no privacy, whatever computes gradients, and one class is enough."""

from pathlib import Path

import numpy as np
import pytest
import torch

from securekd.errors import SettingError
from securekd.knowledge.soft_labels import Clip, SoftLabelShape, soft_labels
from securekd.laboratory.plan import make_plan
from securekd.laboratory.runner import run
from securekd.learning.dp.dp_sgd import Beside, DpSgdPlan, train_dp, train_with_hooks
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.numerics import log_softmax
from securekd.privacy.ledger import read_ledger
from securekd.randomness import Csprng
from securekd.settings.models import Model
from tests.securekd.conftest import small

TABLE = InputShape("tabular", (6,), 4)  # three classes, and the background
PLAN = DpSgdPlan(sampling_rate=0.5, steps=3, noise_multiplier=0.7, clip=0.5)


def drawn(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 6), dtype=np.float32)


def beside(scale: float = 1.0, count: int = 10) -> Beside:
    return Beside(scale * drawn(30, 1), 3, count, np.random.default_rng(5))


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_the_closed_form_and_the_hooks_agree(kind: str) -> None:
    x, y = drawn(20, 0), np.random.default_rng(0).integers(0, 3, 20)
    one, other = (build(Model(kind=kind), TABLE, seed=1) for _ in range(2))
    stream = Csprng(b"\x05" * 32), Csprng(b"\x05" * 32)
    settings = {"learning_rate": 0.3, "momentum": 0.9, "micro_batch": 7}
    outcome = train_dp(one, x, y, plan=PLAN, randomness=stream[0], beside=beside(), **settings)
    assert outcome.gradients == "closed_form"
    sgd = torch.optim.SGD(other.parameters(), lr=0.3, momentum=0.9)
    train_with_hooks(
        other.train(),
        sgd,
        torch.tensor(x),
        torch.tensor(y),
        PLAN,
        stream[1],
        micro_batch=7,
        device="cpu",
        beside=beside(),
    )
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["logistic", "cnn"])
def test_public_rows_are_clipped_and_change_no_private_draw(kind: str) -> None:
    """Without private gradients and noise, a step is that of the public rows alone: C for each at most."""
    shape = TABLE if kind == "logistic" else InputShape("image", (1, 4, 4), 4)
    x = np.zeros((0, *shape.dimensions), np.float32)
    public = 1e3 * np.random.default_rng(2).random((30, *shape.dimensions), dtype=np.float32)
    model = build(Model(kind=kind), shape, seed=1)
    before, stream = weights(model), Csprng(b"\x05" * 32)
    plan = DpSgdPlan(0.5, 1, 0.0, 0.5)
    rows = Beside(public, 3, 10, np.random.default_rng(5))
    labels = np.zeros(0, np.int64)
    settings = {"learning_rate": 1.0, "momentum": 0.0, "micro_batch": 4, "absent": 20}
    train_dp(model, x, labels, plan=plan, randomness=stream, beside=rows, **settings)
    moved = float((weights(model) - before).norm()) * 0.5 * 20  # the divisor of a step is q·N
    assert 0 < moved <= 10 * 0.5 * (1 + 1e-5)


def test_probabilities_keep_the_background_to_themselves() -> None:
    logits = np.array([[0.0, 1.0, 2.0, 3.0], [5.0, 0.0, 0.0, -5.0]])
    shape = SoftLabelShape(2, 3, "probabilities", Clip(10.0))
    found = soft_labels(logits, shape, temperature=2.0, examples=9, share=1.5).vector.reshape(2, 3)
    expected = 1.5 * np.exp(log_softmax(logits / 2))[:, :3]
    np.testing.assert_allclose(found, expected - expected.mean(axis=1, keepdims=True))


BESIDE = {
    "clients": {"models": [{"kind": k, "loss": "background"} for k in ("logistic", "mlp", "cnn")], "count": None},
    "data": {"transfer": 400, "private": None, "test": 300, "partition": {"kind": "column", "column": "label"}},
    "training": {"epochs": 20, "learning_rate": 0.2},
    "rounds": 1,
    "release": {"scores": "probabilities", "noise": 0.0, "clip": 10.0, "temperature": 2.0},
    "student": {"model": "kernel", "loss": "least_squares", "settle": True, "consensus": "mean"},
}


def test_a_run_of_networks_with_one_class_each_learns_all_classes(out: Path) -> None:
    """And the ledger says of their training what it says of any other."""
    found = run(small(**BESIDE), out)
    assert found.utility.student.accuracy > 0.85
    assert found.utility.local_mean.accuracy < 0.2
    cross = make_plan(small(**BESIDE | {"clients": {"models": ["logistic"], "count": None}}))
    assert set(read_ledger(out / "ledger.json").entries) == set(cross.ledger().entries)


def test_without_privacy_and_in_two_rounds_too(out: Path) -> None:
    changes = {"rounds": 2, "privacy": {"noise": "seeded", "dp_sgd": False}, "training": {"plain_epochs": 25}}
    assert run(small(**BESIDE | changes), out).utility.student.accuracy > 0.85


def test_what_a_background_cannot_go_with_is_refused() -> None:
    with pytest.raises(SettingError, match=r"set release.scores = 'probabilities'"):
        make_plan(small(**BESIDE | {"release": {"scores": "logits"}}))
    alike = {"clients": {"models": [{"kind": "mlp", "loss": "background"}]}, "student": {"model": "mlp"}}
    with pytest.raises(SettingError, match="one class more than the student's"):
        make_plan(small(strategy="fedavg", **alike))


@pytest.mark.parametrize("loss", ["background", "class_sums"])
def test_nobody_is_counted_twice(loss: str) -> None:
    model = {"kind": "logistic", "loss": loss, "options": {"components": 20}}
    changes = BESIDE | {
        "clients": {"models": [model]},
        "data": {"transfer": 100},
        "privacy": {"neighbours": "zero_out"},
    }
    changes["student"] = {"consensus": "weighted"}
    with pytest.raises(SettingError, match=f"loss = '{loss}' of client-01 counts a client by its examples"):
        make_plan(small(**changes))


def test_a_client_alone_has_no_use_for_a_background(out: Path) -> None:
    """Alone it trains as with cross-entropy: the same figures, from the same seeds."""
    few = {"clients": {"models": [{"kind": "logistic", "loss": "background"}]}, "data": {"transfer": 100}}
    beside = run(small(**BESIDE | few), out)
    cross = run(small(**BESIDE | few | {"clients": {"models": ["logistic"]}}), out.with_name("cross"))
    assert beside.utility.locals == cross.utility.locals
