"""Class sums: what they are, that heads of clients add up, their noise, and whose models have none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from securekd.errors import ModelError
from securekd.laboratory.plan import make_plan
from securekd.laboratory.runner import run
from securekd.learning.dp.class_sums import split_white, train_class_sums
from securekd.learning.dp.closed_form import Features
from securekd.learning.dp.dp_sgd import DpSgdPlan
from securekd.learning.fits import Fits
from securekd.learning.tasks import network_of
from securekd.models.public import LENGTH
from securekd.models.shape import InputShape
from securekd.privacy.ledger import read_ledger
from securekd.randomness import Csprng
from securekd.settings.models import Model
from tests.securekd.conftest import small

WIDTH, CLASSES = 6, 3
LONG = math.hypot(LENGTH, 1.0)


def drawn(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, WIDTH))
    x *= LENGTH / np.linalg.norm(x, axis=1, keepdims=True)
    return torch.from_numpy(x).float(), torch.from_numpy(rng.integers(0, CLASSES, count))


def head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, CLASSES))


def taught(
    x: torch.Tensor, y: torch.Tensor, plan: DpSgdPlan | None, **more: float
) -> tuple[torch.Tensor, torch.Tensor]:
    made = head()
    settings = {"share": 1.0} | more
    train_class_sums(made, Features.of(x, made), y, plan, Csprng(b"\x07" * 32), **settings)
    return made[0].weight.detach().double(), made[0].bias.detach().double()


def by_hand(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Density ratios with second moments of LENGTH²/D: D/LENGTH² times the mean of a class' features."""
    classes = torch.eye(CLASSES)[y].double()
    return classes.T @ x.double() * WIDTH / LENGTH**2 / len(x), classes.mean(0)


EXACT = DpSgdPlan(sampling_rate=1.0, steps=1, noise_multiplier=0.0, clip=1.0)


@pytest.mark.parametrize("plan", [None, EXACT, DpSgdPlan(1.0, 3, 0.0, 100.0)])
def test_without_noise_they_are_the_density_ratios(plan: DpSgdPlan | None) -> None:
    x, y = drawn(50)
    for found, expected in zip(taught(x, y, plan), by_hand(x, y), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@given(st.lists(st.integers(0, 3), min_size=40, max_size=40), st.integers(0, 99))
def test_heads_of_clients_add_up_to_that_of_all_however_examples_are_dealt(dealt: list[int], seed: int) -> None:
    x, y = drawn(40, seed)
    owner = torch.tensor(dealt)
    parts = [owner == client for client in range(4) if (owner == client).any()]
    mean = 40 / len(parts)
    heads = [taught(x[part], y[part], EXACT, share=float(part.sum()) / mean) for part in parts]
    for found, expected in zip(map(torch.stack, zip(*heads, strict=True)), by_hand(x, y), strict=True):
        torch.testing.assert_close(found.mean(0), expected, rtol=1e-4, atol=1e-5)


def test_a_second_training_is_averaged_in() -> None:
    made, (x, y), (u, v) = head(), drawn(30), drawn(30, 1)
    for earlier, (a, b) in enumerate([(x, y), (u, v)]):
        train_class_sums(made, Features.of(a, made), b, None, Csprng(b"\x07" * 32), share=1.0, earlier=earlier)
    both = [(one + other) / 2 for one, other in zip(by_hand(x, y), by_hand(u, v), strict=True)]
    torch.testing.assert_close(made[0].weight.detach().double(), both[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [0.5, 1.0, 10.0])
def test_one_example_changes_the_sums_by_the_clip_at_most(clip: float) -> None:
    """In units of the clip, which the noise is a multiple of: with and without one example, noise aside."""
    x, y = drawn(20)
    plan = DpSgdPlan(1.0, 1, 0.0, clip)
    moments = torch.tensor([LENGTH**2 / WIDTH] * WIDTH + [1.0])
    shortened = min(1.0, clip / LONG)

    def sums(count: int) -> torch.Tensor:
        weight, bias = taught(x[:count], y[:count], plan, absent=20 - count)
        return torch.cat([weight, bias[:, None]], 1) * moments * 20 * shortened

    apart = float((sums(20) - sums(19)).norm())
    assert apart <= clip * (1 + 1e-5)
    assert apart == pytest.approx(min(clip, LONG), rel=1e-3)


def test_their_noise_is_what_is_accounted_for() -> None:
    """1,050 draws: the standard deviation is within 10% (4.6 standard errors; false alarm 5e-6), seeds fixed."""
    plan, draws = DpSgdPlan(0.5, 4, 2.0, 1.0), []
    for seed in range(50):
        made = head()
        none = torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.int64)
        stream = Csprng(seed.to_bytes(32, "big"))
        train_class_sums(made, Features.of(none[0], made), none[1], plan, stream, share=1.0, absent=100)
        draws.append(torch.cat([made[0].weight.flatten() * LENGTH**2 / WIDTH, made[0].bias]).detach())
    # Four steps of σC = 2, over qN·steps = 200, and clipped gradients are brought back from 1 to √17.
    assert float(torch.stack(draws).std()) == pytest.approx(2.0 * 2.0 / 200 * LONG, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("logistic", {}), ("mlp", {}), ("logistic", {"components": 4, "whitening": 0.5}), ("kernel", {"landmarks": 9})],
)
def test_models_without_white_features_are_refused(kind: str, options: dict) -> None:
    model, shape = Model(kind=kind, options=options), InputShape("tabular", (8,), 3)
    x = np.random.default_rng(0).random((30, 8), dtype=np.float32)
    with pytest.raises(ModelError, match=r"components|is no linear head"):
        split_white(network_of(model, shape, 0, None, Fits(x, shape).of(model)))
    with pytest.raises(ModelError, match=r"components|is no linear head"):
        make_plan(small(clients={"models": [{"kind": kind, "options": options, "loss": "class_sums"}]}))


SUMS = {"kind": "logistic", "loss": "class_sums", "options": {"components": 20}}


def test_a_run_learns_from_clients_of_one_class_each(out) -> None:
    """And the ledger says of their training what it says of any other."""
    changes = {
        "data": {"transfer": 400, "private": None, "test": 300, "partition": {"kind": "column", "column": "label"}},
        "training": {"epochs": 1, "sampling_rate": 1.0},
        "rounds": 1,
        "release": {"noise": 0.0, "clip": 100.0},
        "student": {"model": "kernel", "loss": "least_squares", "settle": True, "consensus": "mean"},
    }
    found = run(small(clients={"models": [SUMS], "count": None}, **changes), out)
    assert found.utility.student.accuracy > 0.85
    assert found.utility.local_mean.accuracy < 0.2  # who knows one class says it everywhere
    cross = make_plan(small(clients={"models": ["logistic"], "count": None}, **changes))
    assert set(read_ledger(out / "ledger.json").entries) == set(cross.ledger().entries)


def test_in_a_second_round_the_sums_go_on(out) -> None:
    found = run(small(clients={"models": [SUMS, "mlp"]}, privacy={"noise": "seeded", "dp_sgd": False}), out)
    assert [one.clients_mean_accuracy > 0.3 for one in found.rounds] == [True, True]


def test_nothing_private_shapes_a_feature() -> None:
    """Other private rows, the same transfer set: not a bit of what models take differs."""
    models = [Model(kind="logistic", options={"components": 20}), Model(kind="kernel", options={"landmarks": 50})]
    plans = [make_plan(small(data={"transfer": 200, "test": 120, "private": count})) for count in (240, 800)]
    for model in models:
        one, other = (plan.fits.of(model) for plan in plans)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
