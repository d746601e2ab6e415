"""DP-SGD against a naive twin, and each silent break of the guarantee that stock use would let in."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.grad_sample import register_grad_sampler
from torch import nn
from torch.nn.functional import cross_entropy

from securekd.errors import ModelError
from securekd.learning.dp.dp_sgd import DpSgdPlan, StrictDPOptimizer, clip_factors, train_dp
from securekd.learning.dp.suited import refuse_unsuited
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape
from securekd.randomness import Csprng, Randomness
from securekd.settings.models import TINY_VIT, Model

IMAGE = InputShape("image", (1, 8, 8), 10)
TEXT = InputShape("text", (7,), 4, vocabulary=50)
TABLE = InputShape("tabular", (6,), 3)
TINY_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
MODELS = {
    "logistic": (Model(kind="logistic"), IMAGE),
    "mlp": (Model(kind="mlp"), TABLE),
    "cnn": (Model(kind="cnn"), IMAGE),
    "vit": (Model(kind="transformers", options=TINY_VIT.options), IMAGE),
    "text-mlp": (Model(kind="mlp"), TEXT),
    "bert": (Model(kind="transformers", options={"model_type": "bert", **TINY_TEXT}), TEXT),
    "roberta": (Model(kind="transformers", options={"model_type": "roberta", **TINY_TEXT}), TEXT),
    "distilbert": (
        Model(
            kind="transformers",
            options={
                "model_type": "distilbert",
                "dim": 16,
                "hidden_dim": 16,
                "n_layers": 1,
                "n_heads": 2,
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "seq_classif_dropout": 0.0,
            },
        ),
        TEXT,
    ),
}


def draw(shape: InputShape, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, shape.classes, count)
    if shape.modality == "text":
        return rng.integers(1, shape.vocabulary, (count, *shape.dimensions)), labels
    return rng.random((count, *shape.dimensions), dtype=np.float32), labels


def one_step(
    model: nn.Module, x: np.ndarray, y: np.ndarray, clip: float, noise: float = 1e-9, micro_batch: int = 64
) -> torch.Tensor:
    """The summed, clipped gradient (noise aside) that one full-batch step applies, read off the weights."""
    before = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    plan = DpSgdPlan(sampling_rate=1.0, steps=1, noise_multiplier=noise, clip=clip)
    train_dp(
        model, x, y, plan=plan, learning_rate=1.0, momentum=0.0, randomness=Csprng(bytes(32)), micro_batch=micro_batch
    )
    after = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    return (before - after) * len(y)


def naive_sum(model: nn.Module, x: np.ndarray, y: np.ndarray, clip: float) -> torch.Tensor:
    """The same by one backward pass for each example: slow and obvious."""
    total = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    model.train()
    for i in range(len(y)):
        model.zero_grad()
        cross_entropy(model(torch.tensor(x[i : i + 1])), torch.tensor(y[i : i + 1])).backward()
        grad = torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
        ).double()
        total += grad * min(1.0, clip / float(grad.norm()))
    return total


@pytest.mark.parametrize("name", MODELS)
def test_clipped_sum_equals_one_example_at_a_time(name: str) -> None:
    model, shape = MODELS[name]
    network = build(model, shape, seed=1)
    x, y = draw(shape, 9)
    expected = naive_sum(copy.deepcopy(network), x, y, clip=0.5)
    found = one_step(network, x, y, clip=0.5, micro_batch=4)
    assert float((found - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_break_1_an_example_moves_the_sum_by_the_clip_at_most(name: str) -> None:
    # With a loss averaged over more than the one example (tokens, class weights), this distance would exceed C.
    model, shape = MODELS[name]
    x, y = draw(shape, 6, seed=3)
    with_it = one_step(build(model, shape, seed=1), x, y, clip=0.01)
    without = one_step(build(model, shape, seed=1), x[1:], y[1:], clip=0.01)
    assert float((with_it - without).norm()) <= 0.01 * (1 + 2e-2)  # float32 weights hold the step to about 1e-3


class SharedPosition(nn.Module):
    """Adds one learnt offset to all examples at once, as position ids of shape (1, L) do."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Embedding(1, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.offset(torch.zeros(1, dtype=torch.long)))


def test_break_2_gradients_of_batch_size_one_are_refused() -> None:
    x, y = draw(TABLE, 5)
    with pytest.raises(ModelError, match="disagree on the batch size"):
        one_step(SharedPosition(), x, y, clip=1.0)


@pytest.mark.parametrize("model_type", ["t5", "mt5", "bart"])
def test_break_3_architectures_with_wrong_gradients_are_refused_by_name(model_type: str) -> None:
    with pytest.raises(ModelError, match=model_type):
        build(Model(kind="transformers", options={"model_type": model_type}), TEXT, seed=0)


def test_break_4_norms_are_taken_in_float64() -> None:
    # Ten million equal float32 squares: a float32 accumulator loses a part of them, and the norm comes out too small.
    grad = torch.full((1, 10_000_000), 0.1, dtype=torch.float32)
    factor = float(clip_factors([grad], 1.0)[0])
    true_norm = math.sqrt(10_000_000) * float(np.float32(0.1))
    assert factor * true_norm <= 1.0
    assert factor * true_norm > 1.0 - 2e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_break_5_a_sample_that_is_not_finite_counts_as_zero(bad: float) -> None:
    x, y = draw(TABLE, 5)
    poisoned = x.copy()
    poisoned[2, 0] = bad
    model = build(Model(kind="mlp"), TABLE, seed=1)
    plan = DpSgdPlan(sampling_rate=1.0, steps=1, noise_multiplier=1e-9, clip=0.5)
    outcome = train_dp(
        model, poisoned, y, plan=plan, learning_rate=1.0, momentum=0.0, randomness=Csprng(bytes(32)), micro_batch=2
    )
    assert outcome.zeroed == 1
    keep = [0, 1, 3, 4]
    expected = build(Model(kind="mlp"), TABLE, seed=1)
    total = naive_sum(copy.deepcopy(expected), x[keep], y[keep], clip=0.5)
    moved = torch.cat(
        [(b - a).detach().double().flatten() for a, b in zip(model.parameters(), expected.parameters(), strict=True)]
    )
    assert float((moved * 5 - total).norm()) < 1e-4


def test_break_6_noise_does_not_follow_torch_seeds() -> None:
    x, y = draw(TABLE, 5)
    plan = DpSgdPlan(sampling_rate=0.5, steps=2, noise_multiplier=1.0, clip=1.0)
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 (the global state must not matter)
        model = build(Model(kind="logistic"), TABLE, seed=1)
        randomness = Randomness("os", 0).secret("test")
        train_dp(model, x, y, plan=plan, learning_rate=0.1, momentum=0.0, randomness=randomness, micro_batch=8)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert not torch.equal(ends[0], ends[1])


def test_break_7_the_divisor_is_the_rate_times_the_population() -> None:
    model = build(Model(kind="logistic"), TABLE, seed=1)
    plan = DpSgdPlan(sampling_rate=0.32, steps=1, noise_multiplier=1.0, clip=1.0)
    optimizer = StrictDPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0), plan=plan, population=100, noise=Csprng(bytes(32))
    )
    assert optimizer.expected_batch_size == pytest.approx(32.0)  # N = 100, B = 32: not 1/len(loader) = 0.25


def test_break_8_batches_are_poisson_samples() -> None:
    # Sizes are Binomial(200, 0.3): their variance is 42, where shuffled batches have none. The bounds are five standard
    # errors from the truth (false alarms below 1e-6), and the seed is fixed.
    stream = Csprng(b"\x07" * 32)
    sizes = np.array([len(stream.poisson_sample(200, 0.3)) for _ in range(4000)])
    assert abs(sizes.mean() - 60) < 5 * math.sqrt(42 / 4000)
    assert abs(sizes.var() - 42) < 5 * 42 * math.sqrt(2 / 4000)


def test_break_8_inclusions_are_independent() -> None:
    stream = Csprng(b"\x08" * 32)
    inclusion = np.zeros((4000, 20))
    for row in inclusion:
        row[stream.poisson_sample(20, 0.3)] = 1
    correlation = np.corrcoef(inclusion.T) - np.eye(20)
    assert np.abs(correlation).max() < 5.5 / math.sqrt(4000)  # 190 pairs: false alarms below 1e-5


def test_break_9_training_noise_is_gaussian_at_full_float64_resolution() -> None:
    # What leaves a client is integers (see the release); here: the sampler has no coarse grid in its low bits.
    draws = Csprng(b"\x09" * 32).normal(200_000)
    assert len(np.unique(draws)) == 200_000
    assert abs(draws.mean()) < 5 / math.sqrt(200_000)
    assert abs(draws.var() - 1) < 5 * math.sqrt(2 / 200_000)


def test_an_empty_sample_still_adds_noise() -> None:
    model = build(Model(kind="logistic"), TABLE, seed=1)
    x, y = draw(TABLE, 3)
    plan = DpSgdPlan(sampling_rate=1e-9, steps=1, noise_multiplier=2.0, clip=1.0)
    before = torch.cat([p.detach().flatten() for p in model.parameters()]).clone()
    train_dp(model, x, y, plan=plan, learning_rate=1e-9, momentum=0.0, randomness=Csprng(bytes(32)), micro_batch=8)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert not torch.equal(before, after)


def test_noise_has_the_stated_size() -> None:
    # One step from an empty sample applies σ·C·N(0, 1)/(q·N) to each of 210 weights; five standard errors.
    model = build(Model(kind="mlp", options={"hidden": 2000}), TABLE, seed=1)
    x, y = draw(TABLE, 4)
    count = sum(p.numel() for p in model.parameters())
    before = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    plan = DpSgdPlan(sampling_rate=1e-6, steps=1, noise_multiplier=3.0, clip=0.5)
    train_dp(model, x, y, plan=plan, learning_rate=4e-6, momentum=0.0, randomness=Csprng(b"\x01" * 32), micro_batch=8)
    moved = torch.cat([p.detach().double().flatten() for p in model.parameters()]) - before
    assert abs(float(moved.std()) / 1.5 - 1) < 5 / math.sqrt(2 * count)


def test_micro_batches_change_nothing_but_rounding() -> None:
    x, y = draw(IMAGE, 23)
    plan = DpSgdPlan(sampling_rate=0.7, steps=4, noise_multiplier=1.0, clip=1.0)
    ends = []
    for micro_batch in (3, 64):
        model = build(Model(kind="cnn"), IMAGE, seed=1)
        train_dp(
            model,
            x,
            y,
            plan=plan,
            learning_rate=0.3,
            momentum=0.9,
            randomness=Csprng(b"\x02" * 32),
            micro_batch=micro_batch,
        )
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert float((ends[0] - ends[1]).abs().max()) < 1e-5


def test_batch_norm_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(ModelError, match="group or layer norm"):
        refuse_unsuited(model, torch.zeros(3, 6))


def test_a_model_with_nothing_to_train_is_refused() -> None:
    model = nn.Linear(6, 3).requires_grad_(False)
    with pytest.raises(ModelError, match="no trainable parameter"):
        refuse_unsuited(model, torch.zeros(3, 6))


class Mixing(nn.Module):
    """Subtracts the mean of the batch: no layer type tells that it mixes examples."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x - x.mean(0))


class Scrambled(nn.Linear):
    """A layer whose registered per-example gradients are wrong, as T5's position bias has them."""


@register_grad_sampler(Scrambled)
def scrambled_grads(layer: nn.Linear, activations: list[torch.Tensor], backprops: torch.Tensor) -> dict:
    return {
        layer.weight: torch.einsum("ni,nj->nij", backprops.flip(0), activations[0]),
        layer.bias: backprops.flip(0),
    }


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Mixing(), "mixes the examples"),
        (SharedPosition(), "disagree on the batch size"),
        (nn.Sequential(Scrambled(6, 3)), "differ from those of the example alone"),
        (nn.Linear(6, 3).double(), "other than float32"),
        (nn.Linear(6, 3).half(), "other than float32"),
    ],
)
def test_models_whose_examples_cannot_be_kept_apart_are_refused_beforehand(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        refuse_unsuited(model, torch.zeros(3, 6))


@pytest.mark.parametrize("name", MODELS)
def test_suited_models_pass(name: str) -> None:
    model, shape = MODELS[name]
    refuse_unsuited(build(model, shape, seed=0), probe(shape, 3))


def test_half_precision_checkpoints_are_loaded_in_float32(tmp_path: Path) -> None:
    source = build(MODELS["bert"][0], TEXT, seed=0)
    source.model.half().save_pretrained(tmp_path)
    loaded = build(Model(kind="transformers", options={"path": str(tmp_path)}), TEXT, seed=0)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    refuse_unsuited(loaded, probe(TEXT, 3))
