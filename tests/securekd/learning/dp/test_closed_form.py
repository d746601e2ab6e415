"""The closed form against Opacus' hooks, its clip and its noise, and which models it is for."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from securekd.errors import ModelError
from securekd.learning.dp.closed_form import Features, clipped_sums
from securekd.learning.dp.dp_sgd import DpSgdPlan, TrainingOutcome, train_dp, train_with_hooks
from securekd.learning.dp.mechanism import add_noise
from securekd.learning.dp.suited import refuse_unsuited
from securekd.learning.plain import train_plain
from securekd.models.frozen import compute_features, split_frozen
from securekd.models.huggingface import Classifier
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.randomness import Csprng
from securekd.settings.models import TINY_VIT, Model

IMAGE = InputShape("image", (1, 8, 8), 10)
TEXT = InputShape("text", (7,), 4, vocabulary=50)
TABLE = InputShape("tabular", (6,), 3)
TINY_TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TINY_BERT = {"model_type": "bert", "frozen": True, **TINY_TEXT}
TINY_ROBERTA = {**TINY_BERT, "model_type": "roberta"}
DISTILBERT = {"model_type": "distilbert", "frozen": True, "dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2}


def deep(*activations: nn.Module, bias: bool = True) -> nn.Sequential:
    """A head of one linear layer more than there are activations, on 6 features, for 3 classes."""
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    width = 6
    for activation in activations:
        layers += [nn.Linear(width, 8, bias=bias), activation]
        width = 8
    return nn.Sequential(*layers, nn.Linear(width, 3, bias=bias))


def hugging(options: dict, shape: InputShape) -> nn.Module:
    return build(Model(kind="transformers", options=options), shape, seed=1)


HEADS = {
    "linear": (lambda: build(Model(kind="logistic"), TABLE, 1), TABLE),
    "image": (lambda: build(Model(kind="logistic"), IMAGE, 1), IMAGE),
    "tanh": (lambda: build(Model(kind="mlp", options={"hidden": 16, "layers": 2}), TABLE, 1), TABLE),
    "relu": (lambda: deep(nn.ReLU()), TABLE),
    "without bias": (lambda: deep(nn.Tanh(), nn.GELU(), bias=False), TABLE),
    "bert": (lambda: hugging(TINY_BERT, TEXT), TEXT),
    "roberta": (lambda: hugging(TINY_ROBERTA, TEXT), TEXT),
    "distilbert": (lambda: hugging(DISTILBERT, TEXT), TEXT),
    "vit": (lambda: hugging(TINY_VIT.options | {"frozen": True, "hidden_dropout_prob": 0.1}, IMAGE), IMAGE),
}


def draw(shape: InputShape, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, shape.classes, count)
    if shape.modality == "text":
        return rng.integers(1, shape.vocabulary, (count, *shape.dimensions)), labels
    return rng.random((count, *shape.dimensions), dtype=np.float32), labels


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def train(model: nn.Module, x: np.ndarray, y: np.ndarray, plan: DpSgdPlan, rate: float = 0.3) -> TrainingOutcome:
    stream = Csprng(b"\x05" * 32)
    return train_dp(model, x, y, plan=plan, learning_rate=rate, momentum=0.9, randomness=stream, micro_batch=7)


def train_hooked(model: nn.Module, x: np.ndarray, y: np.ndarray, plan: DpSgdPlan, rate: float = 0.3) -> int:
    trainable = [p for p in model.train().parameters() if p.requires_grad]
    sgd = torch.optim.SGD(trainable, lr=rate, momentum=0.9)
    stream = Csprng(b"\x05" * 32)
    return train_with_hooks(model, sgd, torch.tensor(x), torch.tensor(y), plan, stream, micro_batch=7, device="cpu")


@pytest.mark.parametrize("name", HEADS)
def test_equals_opacus_with_the_same_draws(name: str) -> None:
    make, shape = HEADS[name]
    model = make()
    twin, before = copy.deepcopy(model), weights(model)
    x, y = draw(shape, 40)
    plan = DpSgdPlan(sampling_rate=0.4, steps=12, noise_multiplier=0.8, clip=0.7)
    assert train(model, x, y, plan) == TrainingOutcome(steps=12, zeroed=0, gradients="closed_form")
    train_hooked(twin, x, y, plan)
    assert float((weights(model) - before).norm()) > 0.1
    assert float((weights(model) - weights(twin)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["linear", "tanh"])
def test_a_batch_may_be_empty(name: str) -> None:
    make, shape = HEADS[name]
    model = make()
    twin, before = copy.deepcopy(model), weights(model)
    x, y = draw(shape, 4)
    plan = DpSgdPlan(sampling_rate=1e-9, steps=3, noise_multiplier=1.0, clip=1.0)
    train(model, x, y, plan, rate=1e-9)
    train_hooked(twin, x, y, plan, rate=1e-9)
    assert not torch.equal(weights(model), before)
    assert float((weights(model) - weights(twin)).abs().max()) < 1e-5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e35])
@pytest.mark.parametrize("name", ["linear", "tanh", "relu"])
def test_an_example_that_is_not_finite_counts_as_zero(name: str, bad: float) -> None:
    make, shape = HEADS[name]
    head = split_frozen(make().train())
    assert head is not None
    x, y = (torch.tensor(a) for a in draw(shape, 5))
    x[2, 0] = bad
    values = compute_features(head, x, micro_batch=2, device="cpu")
    found = clipped_sums(head.head, Features.of(values, head.head), y, clip=0.5)
    keep = torch.tensor([0, 1, 3, 4])
    expected = clipped_sums(head.head, Features.of(values[keep], head.head), y[keep], clip=0.5)
    assert (found.zeroed, expected.zeroed) == (1, 0)
    for one, other in zip(totals(found, head.head), totals(expected, head.head), strict=True):
        torch.testing.assert_close(one, other)


def totals(sums, head: nn.Sequential) -> list[torch.Tensor]:
    found = {p: torch.zeros_like(p) for p in head.parameters()}
    sums.add_to(found, decay=0.0)
    return list(found.values())


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    size=st.floats(-30, 20),
    weight=st.floats(-3, 3),
    clip=st.floats(-4, 4),
    hidden=st.integers(0, 2),
    bias=st.booleans(),
)
def test_no_example_exceeds_the_clip(
    seed: int, size: float, weight: float, clip: float, hidden: int, bias: bool
) -> None:
    # What one example adds is multiplied out in float64 from the float32 factors that the sum is made of.
    generator = torch.Generator().manual_seed(seed)
    head = deep(*[nn.Tanh() for _ in range(hidden)], bias=bias)
    with torch.no_grad():
        for p in head.parameters():
            p.mul_(10.0**weight)
    values = torch.randn((4, 6), generator=generator) * 10.0**size
    sums = clipped_sums(head, Features.of(values, head), torch.tensor([0, 1, 2, 0]), clip=10.0**clip)
    squares = torch.zeros(4, dtype=torch.float64)
    for product in sums.products:
        delta, entering = product.scaled.double(), product.entering.double()
        squares += torch.einsum("no,ni->noi", delta, entering).square().sum((1, 2))
        squares += delta.square().sum(1) if bias else 0.0
    assert float(squares.sqrt().max()) <= 10.0**clip


def test_noise_has_the_stated_size_and_law() -> None:
    # Five standard errors; the Kolmogorov distance of n draws exceeds 2.5/√n with probability 7e-6.
    count, scale = 400_001, 2.5
    found = torch.zeros(count, dtype=torch.float64)
    add_noise(found, scale, Csprng(b"\x06" * 32))
    draws = np.sort(found.numpy()) / scale
    assert abs(draws.mean()) < 5 / math.sqrt(count)
    assert abs(draws.std() - 1) < 5 / math.sqrt(2 * count)
    law = 0.5 * (1 + torch.special.erf(torch.from_numpy(draws) / math.sqrt(2))).numpy()
    assert np.abs(law - np.arange(count) / count).max() < 2.5 / math.sqrt(count)
    assert len(np.unique(draws)) == count
    neighbours = np.corrcoef(found[: count // 2], found[count // 2 + 1 :])[0, 1]  # sine and cosine of one angle
    assert abs(neighbours) < 5 / math.sqrt(count // 2)


@given(count=st.integers(0, 9))
def test_noise_is_box_and_mullers(count: int) -> None:
    found = torch.arange(count, dtype=torch.float64)
    add_noise(found, 3.0, Csprng(bytes(32)))
    half = (count + 1) // 2
    fractions = [int(word) // 2**12 / 2**52 for word in Csprng(bytes(32)).words(2 * half)]
    pairs = [
        (math.sqrt(-2 * math.log(1 - u)), 2 * math.pi * v)
        for u, v in zip(*np.split(np.array(fractions), 2), strict=True)
    ]
    expected = [r * math.cos(a) for r, a in pairs] + [r * math.sin(a) for r, a in pairs]
    np.testing.assert_allclose(found, [i + 3.0 * z for i, z in enumerate(expected[:count])], atol=1e-12)


def test_a_step_from_no_examples_is_noise_of_the_stated_size() -> None:
    model = build(Model(kind="mlp", options={"hidden": 4000}), TABLE, seed=1)
    before = weights(model)
    x, y = draw(TABLE, 4)
    train(model, x, y, DpSgdPlan(sampling_rate=1e-6, steps=1, noise_multiplier=3.0, clip=0.5), rate=4e-6)
    moved = weights(model) - before
    assert abs(float(moved.std()) / 1.5 - 1) < 5 / math.sqrt(2 * len(moved))


class Shifting(nn.Module):
    """A layer of the user's: no type tells whether it is the same at every call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(1) if self.training else x


def shared() -> nn.Sequential:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer)


def partly(layer: int) -> nn.Sequential:
    model = deep(nn.Tanh())
    model[layer].bias.requires_grad_(False)
    return model


def encoder(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).requires_grad_(False)


FOR_HOOKS = {
    "learnt embeddings": lambda: build(Model(kind="mlp"), TEXT, 0),
    "convolutions": lambda: build(Model(kind="cnn"), IMAGE, 0),
    "dropout in the head": lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1), nn.Linear(6, 3)),
    "dropout in the features": lambda: nn.Sequential(encoder(nn.Linear(6, 6), nn.Dropout(0.1)), nn.Linear(6, 3)),
    "batch statistics": lambda: nn.Sequential(encoder(nn.BatchNorm1d(6)), nn.Linear(6, 3)),
    "unknown layer": lambda: nn.Sequential(Shifting(), nn.Linear(6, 3)),
    "a layer used twice": shared,
    "a part of a layer frozen": lambda: partly(2),
    "a layer's bias frozen": lambda: partly(0),
    "layer norm in the head": lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)),
    "a frozen layer in the head": lambda: nn.Sequential(nn.Linear(6, 6), encoder(nn.Linear(6, 6)), nn.Linear(6, 3)),
    "nothing to train": lambda: nn.Sequential(nn.Linear(6, 3)).requires_grad_(False),
    "no sequence": lambda: nn.Bilinear(6, 6, 3),
    "encoder not frozen": lambda: hugging({**TINY_BERT, "frozen": False}, TEXT),
    "a score for each token": lambda: hugging(
        {"model_type": "gpt2", "frozen": True, "n_embd": 8, "n_layer": 1, "n_head": 1, "eos_token_id": 1}, TEXT
    ),
}
FOR_CLOSED_FORM = {
    "in place": lambda: deep(nn.ReLU(inplace=True)),
    "a layer alone": lambda: nn.Linear(6, 3),
    "dropout of nothing": lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.0), nn.Linear(6, 3)),
    "frozen convolutions": lambda: nn.Sequential(
        encoder(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(72, 3)
    ),
    "frozen resnet": lambda: hugging(
        {"model_type": "resnet", "frozen": True, "embedding_size": 4, "hidden_sizes": [4], "depths": [1]},
        InputShape("image", (3, 32, 32), 4),
    ),
}


@pytest.mark.parametrize("name", FOR_HOOKS)
def test_other_models_keep_the_hooks(name: str) -> None:
    assert split_frozen(FOR_HOOKS[name]().train()) is None


@pytest.mark.parametrize("name", FOR_CLOSED_FORM)
def test_models_with_fixed_features_are_recognised(name: str) -> None:
    assert split_frozen(FOR_CLOSED_FORM[name]().train()) is not None


@pytest.mark.parametrize("name", HEADS)
def test_features_and_head_are_the_model(name: str) -> None:
    make, shape = HEADS[name]
    model = make().train()
    split = split_frozen(model)
    assert split is not None
    x = torch.tensor(draw(shape, 9)[0])
    torch.testing.assert_close(split.head(compute_features(split, x, micro_batch=4, device="cpu")), model(x))
    assert {id(p) for p in split.head.parameters()} == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_user_layer_in_inference_mode_is_fixed() -> None:
    model = nn.Sequential(Shifting(), nn.Linear(6, 3)).train()
    model[0].eval()
    assert split_frozen(model) is not None


def test_the_hooks_train_what_the_closed_form_does_not() -> None:
    x, y = draw(IMAGE, 6)
    plan = DpSgdPlan(sampling_rate=0.5, steps=1, noise_multiplier=1.0, clip=1.0)
    assert train(build(Model(kind="cnn"), IMAGE, 0), x, y, plan).gradients == "hooks"


def test_a_frozen_encoder_passes_the_checks_of_dp_sgd() -> None:
    refuse_unsuited(hugging(TINY_BERT, TEXT), torch.tensor(draw(TEXT, 3)[0]))


def test_a_model_without_an_encoder_apart_cannot_be_frozen() -> None:
    with pytest.raises(ModelError, match="no head apart from its encoder"):
        Classifier(nn.Linear(6, 3), TABLE, frozen=True)


def test_plain_training_leaves_a_frozen_encoder_alone() -> None:
    model = hugging(TINY_BERT, TEXT)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x, y = draw(TEXT, 20)
    rng = np.random.default_rng(0)
    train_plain(model, x, y, epochs=2, batch_size=8, learning_rate=0.01, randomness=rng)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"model.classifier.weight", "model.classifier.bias"}
