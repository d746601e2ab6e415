"""Models that change what a layer gave in place: trained like the same model written without it, clip and all."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, hardswish, relu

from securekd.learning.dp.dp_sgd import DpSgdPlan, train_dp
from securekd.learning.dp.suited import refuse_unsuited
from securekd.learning.plain import train_plain
from securekd.models.frozen import split_frozen
from securekd.randomness import Csprng

Use = Callable[[nn.Module, Tensor], Tensor]


class Written(nn.Module):
    """Two layers, with what is written between them."""

    def __init__(self, between: Use) -> None:
        super().__init__()
        self.between = between
        self.body = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, x))


def zeroed(h: Tensor) -> Tensor:
    h[:, :2] = 0.0
    return h


def added(m: nn.Module, x: Tensor) -> Tensor:
    h = m.norm(m.body(x))
    h += x
    return h


def discarded(m: nn.Module, x: Tensor) -> Tensor:
    h = m.norm(m.body(x))
    torch.relu_(h)
    return h


# What is written in place, and the same without.
WRITTEN: dict[str, tuple[Use, Use]] = {
    "relu_": (lambda m, x: m.norm(m.body(x)).relu_(), lambda m, x: m.norm(m.body(x)).relu()),
    "relu in place": (
        lambda m, x: relu(m.norm(m.body(x)), inplace=True),
        lambda m, x: relu(m.norm(m.body(x))),
    ),
    "what it gives is not used": (discarded, lambda m, x: relu(m.norm(m.body(x)))),
    "hardswish in place": (
        lambda m, x: hardswish(m.norm(m.body(x)), inplace=True),
        lambda m, x: hardswish(m.norm(m.body(x))),
    ),
    "twice": (
        lambda m, x: m.norm(m.body(x)).mul_(1.5).tanh_(),
        lambda m, x: (m.norm(m.body(x)) * 1.5).tanh(),
    ),
    "a residual": (added, lambda m, x: m.norm(m.body(x)) + x),
    "a part": (
        lambda m, x: zeroed(m.norm(m.body(x))),
        lambda m, x: m.norm(m.body(x)) * torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
    ),
    "a layer used twice": (
        lambda m, x: m.norm(m.body(m.body(x).tanh_()).sin_()),
        lambda m, x: m.norm(m.body(m.body(x).tanh()).sin()),
    ),
    "the inputs": (lambda m, x: m.norm(m.body(x.sub_(0.5))), lambda m, x: m.norm(m.body(x - 0.5))),
}


def convolutions(activation: Callable[..., nn.Module], in_place: bool) -> nn.Module:
    layers = [nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), activation(inplace=in_place), nn.Conv2d(4, 2, 1)]
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), *layers, activation(inplace=in_place), nn.Flatten(), nn.Linear(4, 3)
    )


MODELS: dict[str, Callable[[bool], nn.Module]] = {
    "layers: relu": lambda p: convolutions(nn.ReLU, p),
    "layers: hardswish": lambda p: convolutions(nn.Hardswish, p),
    "layers: leaky relu": lambda p: convolutions(nn.LeakyReLU, p),
    "layers: silu after layer norm": lambda p: nn.Sequential(
        nn.Linear(6, 6), nn.LayerNorm(6), nn.SiLU(inplace=p), nn.Linear(6, 3)
    ),
} | {name: lambda p, pair=pair: Written(pair[0] if p else pair[1]) for name, pair in WRITTEN.items()}
HEADS: dict[str, Callable[[bool], nn.Module]] = {
    "relu": lambda p: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=p), nn.Linear(8, 3)),
    "elu and silu": lambda p: nn.Sequential(
        nn.Linear(6, 8), nn.ELU(inplace=p), nn.Linear(8, 8), nn.SiLU(inplace=p), nn.Linear(8, 3)
    ),
    "first thing": lambda p: nn.Sequential(nn.LeakyReLU(inplace=p), nn.Linear(6, 8), nn.ReLU6(p), nn.Linear(8, 3)),
    "frozen features": lambda p: nn.Sequential(
        nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=p)).requires_grad_(False), nn.Linear(6, 3)
    ),
}


def pair_of(make: Callable[[bool], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """The model with and without changes in place, from the same weights."""
    torch.manual_seed(1)
    one = make(True)
    other = make(False)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    return one, other


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6)).astype(np.float32), rng.integers(0, 3, count)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def step(model: nn.Module, x: np.ndarray, y: np.ndarray, clip: float) -> Tensor:
    """The sum of clipped gradients, read off the weights after one step of the whole batch without noise."""
    before = weights(model)
    plan = DpSgdPlan(sampling_rate=1.0, steps=1, noise_multiplier=1e-9, clip=clip)
    train_dp(model, x, y, plan=plan, learning_rate=1.0, momentum=0.0, randomness=Csprng(bytes(32)), micro_batch=4)
    return (before - weights(model)) * len(y)


def naive_sum(model: nn.Module, x: np.ndarray, y: np.ndarray, clip: float) -> Tensor:
    """The same, one example at a time, by torch alone."""
    used = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    for i in range(len(y)):
        loss = cross_entropy(model.train()(torch.tensor(x[i : i + 1])), torch.tensor(y[i : i + 1]))
        of = dict(zip(used, torch.autograd.grad(loss, used, allow_unused=True), strict=True))
        parts = [torch.zeros_like(p) if of.get(p) is None else of[p] for p in model.parameters()]
        grad = torch.cat([g.flatten() for g in parts]).double()
        total += grad * min(1.0, clip / float(grad.norm()))
    return total


@pytest.mark.parametrize("name", MODELS)
def test_dp_sgd_trains_a_model_in_place_as_the_same_model_without(name: str) -> None:
    one, other = pair_of(MODELS[name])
    x, y = draw(17)
    plan = DpSgdPlan(sampling_rate=0.5, steps=5, noise_multiplier=0.8, clip=0.7)
    for model in (one, other):
        refuse_unsuited(model, torch.zeros(3, 6))
        stream = Csprng(b"\x05" * 32)
        out = train_dp(model, x, y, plan=plan, learning_rate=0.3, momentum=0.9, randomness=stream, micro_batch=4)
        assert out.gradients == "hooks"
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*MODELS, *HEADS])
@pytest.mark.parametrize("clip", [0.3, 50.0])
def test_its_clipped_sum_is_that_of_one_example_at_a_time(name: str, clip: float) -> None:
    one, other = pair_of((MODELS | HEADS)[name])
    x, y = draw(9)
    expected = naive_sum(other, x, y, clip)
    found = step(one, x, y, clip)
    assert float((found - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("name", [*MODELS, *HEADS])
def test_an_example_moves_its_sum_by_the_clip_at_most(name: str) -> None:
    x, y = draw(6)
    torch.manual_seed(1)
    model = (MODELS | HEADS)[name](True)
    with_it = step(copy.deepcopy(model), x, y, clip=0.01)
    without = step(copy.deepcopy(model), x[1:], y[1:], clip=0.01)
    assert 0.0 < float((with_it - without).norm()) <= 0.01 * (1 + 2e-2)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_in_place_keeps_the_closed_form_to_the_last_bit(name: str) -> None:
    one, other = pair_of(HEADS[name])
    x, y = draw(17)
    assert split_frozen(one.train()) is not None
    plan = DpSgdPlan(sampling_rate=0.5, steps=5, noise_multiplier=0.8, clip=0.7)
    kept = x.copy()
    for model in (one, other):
        refuse_unsuited(model, torch.zeros(3, 6))
        stream = Csprng(b"\x05" * 32)
        out = train_dp(model, x, y, plan=plan, learning_rate=0.3, momentum=0.9, randomness=stream, micro_batch=4)
        assert out.gradients == "closed_form"
    assert torch.equal(weights(one), weights(other))
    assert np.array_equal(x, kept)


@pytest.mark.parametrize("name", [*MODELS, *HEADS])
def test_so_does_training_without_privacy(name: str) -> None:
    one, other = pair_of((MODELS | HEADS)[name])
    x, y = draw(17)
    for model in (one, other):
        train_plain(model, x, y, epochs=2, batch_size=4, learning_rate=0.01, randomness=np.random.default_rng(1))
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("written", ["a layer", "a function"])
def test_dropout_in_place_keeps_examples_apart(written: str) -> None:
    def between(m: nn.Module, x: Tensor) -> Tensor:
        h = m.norm(m.body(x))
        if written == "a layer":
            return nn.Dropout(0.5, inplace=True).train(m.training)(h)
        return dropout(h, 0.5, m.training, inplace=True)

    torch.manual_seed(1)
    model = Written(between)
    refuse_unsuited(model, torch.zeros(3, 6))
    x, y = draw(6)
    moved = []
    for labels in (y, np.concatenate([(y[:1] + 1) % 3, y[1:]])):
        torch.manual_seed(2)  # the same neurons drop out
        moved.append(step(copy.deepcopy(model), x, labels, clip=0.01))
    assert 0.0 < float((moved[0] - moved[1]).norm()) <= 2 * 0.01 * (1 + 2e-2)
