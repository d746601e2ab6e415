"""Which models DP-SGD takes: the others are refused with the layer, the true cause, and a remedy that works."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN, DPMultiheadAttention
from torch import Tensor, nn
from torch.nn.functional import batch_norm, dropout, linear
from torch.utils.checkpoint import checkpoint

from securekd.errors import ModelError
from securekd.learning.dp.dp_sgd import DpSgdPlan, train_dp
from securekd.learning.dp.suited import refuse_unsuited
from securekd.randomness import Csprng

Forward = Callable[["Parts", Tensor], Tensor]


class Parts(nn.Module):
    """Layers by name, and a forward pass that uses them."""

    def __init__(self, use: Forward, **layers: nn.Module) -> None:
        super().__init__()
        self.use = use
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x)


class Own(nn.Module):
    """Parameters of its own, and a buffer if it is asked for."""

    def __init__(self, *, buffer: bool = False, scale: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((6,), 0.7))
        self.in_place = scale
        if buffer:
            self.register_buffer("shift", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.scale) if self.in_place else x * self.scale


class Remembering(nn.Module):
    """Keeps the mean of what it saw, where nobody adds noise."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = x.detach().mean(0)
        return x


def steps(x: Tensor) -> Tensor:
    return x.view(len(x), 3, 2)


def recurrent(layer: nn.Module) -> nn.Module:
    return Parts(lambda m, x: m.head(m.body(steps(x))[0][:, -1]), body=layer, head=nn.Linear(4, 3))


def attention(layer: nn.Module) -> nn.Module:
    return Parts(lambda m, x: m.head(m.body(*[steps(x)] * 3)[0].flatten(1)), body=layer, head=nn.Linear(6, 3))


def transformer() -> nn.Module:
    layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 2, 4, batch_first=True), 1)
    return Parts(lambda m, x: m.head(m.body(steps(x)).flatten(1)), body=layers, head=nn.Linear(6, 3))


def instance_norm(*, affine: bool, statistics: bool) -> nn.Module:
    norm = nn.InstanceNorm1d(3, affine=affine, track_running_stats=statistics)
    return Parts(lambda m, x: m.head(m.norm(steps(x)).flatten(1)), norm=norm, head=nn.Linear(6, 3))


def hidden_batch_norm() -> nn.Module:
    def use(m: Parts, x: Tensor) -> Tensor:
        known = (torch.zeros(6), torch.ones(6))
        return m.head(dropout(batch_norm(x, *known, training=m.training), 0.5, m.training))

    return Parts(use, head=nn.Linear(6, 3))


def tied() -> nn.Module:
    one, other = nn.Linear(6, 6), nn.Linear(6, 6)
    other.weight = one.weight
    return nn.Sequential(one, nn.Tanh(), other, nn.Tanh(), nn.Linear(6, 3))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def in_bfloat16(use: Forward, **layers: nn.Module) -> nn.Module:
    def cast(m: Parts, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return use(m, x)

    return Parts(cast, head=nn.Linear(6, 3), **layers)


def checkpointed(use: Forward, *body: nn.Module, reentrant: bool = False) -> nn.Module:
    def forward(m: Parts, x: Tensor) -> Tensor:
        return m.head(checkpoint(lambda inner: use(m, inner), x.requires_grad_(), use_reentrant=reentrant))

    return Parts(forward, body=nn.Sequential(*body), head=nn.Linear(6, 3))


AGAIN = "gradient checkpointing calls it again"
ONE_PIECE = "computed by torch in one piece"
OUTSIDE = "outside a call of the layer that holds it"
REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "lstm": (lambda: recurrent(nn.LSTM(2, 4, batch_first=True)), ("body (LSTM)", ONE_PIECE, "opacus.layers.DPLSTM")),
    "gru": (lambda: recurrent(nn.GRU(2, 4, batch_first=True)), ("body (GRU)", ONE_PIECE, "opacus.layers.DPGRU")),
    "rnn": (lambda: recurrent(nn.RNN(2, 4, batch_first=True)), ("body (RNN)", ONE_PIECE, "opacus.layers.DPRNN")),
    "attention": (
        lambda: attention(nn.MultiheadAttention(2, 1, batch_first=True)),
        ("body (MultiheadAttention)", ONE_PIECE, "opacus.layers.DPMultiheadAttention", "transformers"),
    ),
    "transformer": (transformer, ("body.layers.0.self_attn (MultiheadAttention)", ONE_PIECE)),
    "a cell with a state": (
        lambda: Parts(lambda m, x: m.head(m.cell(x)[0]), cell=nn.LSTMCell(6, 4), head=nn.Linear(4, 3)),
        ("cell (LSTMCell)", "it takes Tensor and gives a tuple"),
    ),
    "attention with further keys": (
        lambda: attention(DPMultiheadAttention(2, 1, add_bias_kv=True, batch_first=True)),
        ("seq_bias_v (SequenceBias)", "The expanded size"),
    ),
    "a transformer in full": (
        lambda: Parts(
            lambda m, x: m.head(m.transformer(steps(x), steps(x)).flatten(1)),
            transformer=nn.Transformer(2, 1, 1, 1, 4, batch_first=True),
            head=nn.Linear(6, 3),
        ),
        ("transformer.encoder.layers.0.self_attn (MultiheadAttention)", ONE_PIECE),
    ),
    "bilinear": (
        lambda: Parts(lambda m, x: m.pair(x, x), pair=nn.Bilinear(6, 6, 3)),
        ("pair (Bilinear)", "it takes Tensor, Tensor and gives a Tensor"),
    ),
    "called by keyword": (
        lambda: Parts(lambda m, x: m.head(input=x), head=nn.Linear(6, 3)),
        ("head (Linear)", "it takes nothing by position"),
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        ("1 (BatchNorm1d)", "normalises over the batch", "group or layer norm"),
    ),
    "batch norm without parameters, beside dropout": (
        lambda: nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Dropout(0.5), nn.Linear(6, 3)),
        ("0 (BatchNorm1d)", "normalises over the batch"),
    ),
    "batch norm that no type tells of, beside dropout": (hidden_batch_norm, ("mixes the examples",)),
    "instance norm": (
        lambda: instance_norm(affine=True, statistics=True),
        ("norm (InstanceNorm1d)", "statistics of private inputs", "track_running_stats=False"),
    ),
    "instance norm without parameters": (
        lambda: instance_norm(affine=False, statistics=True),
        ("norm (InstanceNorm1d)", "track_running_stats=False"),
    ),
    "a buffer that sees data": (lambda: nn.Sequential(Remembering(), nn.Linear(6, 3)), ("buffer (0.seen)",)),
    "parameters beside a buffer": (
        lambda: nn.Sequential(Own(buffer=True), nn.Linear(6, 3)),
        ("0 (Own)", "(scale)", "(shift)", "layer of their own"),
    ),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3))),
        ("0 (ParametrizedLinear)", "buffers (parametrizations.weight.0._u"),
    ),
    "complex numbers": (
        lambda: Parts(lambda m, x: m.head(x.cfloat()).abs(), head=nn.Linear(6, 3, dtype=torch.complex64)),
        ("head.weight is complex64", "two real ones"),
    ),
    "a weight used from outside": (
        lambda: Parts(lambda m, x: linear(x, m.head.weight, m.head.bias), head=nn.Linear(6, 3)),
        ("head.weight", OUTSIDE),
    ),
    "a list of parameters": (
        lambda: Parts(lambda m, x: x @ m.held[0], held=nn.ParameterList([nn.Parameter(torch.ones(6, 3))])),
        ("held.0", OUTSIDE),
    ),
    "a weight used from inside and outside": (
        lambda: Parts(lambda m, x: m.head(x) + linear(x, m.head.weight), head=nn.Linear(6, 3)),
        ("head.weight", "used outside a call too"),
    ),
    "the same beside dropout": (
        lambda: Parts(
            lambda m, x: dropout(m.head(x) + linear(x, m.head.weight), 0.3, m.training), head=nn.Linear(6, 3)
        ),
        ("head.weight", "do not add up", "used outside a call too"),
    ),
    "an input changed in place by a layer with parameters": (
        lambda: nn.Sequential(nn.Linear(6, 6), Own(scale=True), nn.Linear(6, 3)),
        ("1.scale", "changes its input in place"),
    ),
    "what autograd needs changed in place": (
        lambda: Parts(
            lambda m, x: m.head(h := m.body(x)) + h.relu_().sum(1, keepdim=True),
            body=nn.Linear(6, 6),
            head=nn.Linear(6, 3),
        ),
        ("modified by an inplace operation",),
    ),
    "autocast": (lambda: in_bfloat16(lambda m, x: m.head(x)), ("head (Linear) in bfloat16", "torch.autocast")),
    "autocast, with logits made whole again": (
        lambda: in_bfloat16(lambda m, x: m.head(x).float()),
        ("head (Linear) in bfloat16", "privacy.dp_sgd = false"),
    ),
    "autocast around a layer with a norm behind": (
        lambda: in_bfloat16(lambda m, x: m.norm(m.head(x)), norm=nn.LayerNorm(3)),
        ("head (Linear) in bfloat16",),
    ),
    "half precision written by hand": (
        lambda: Parts(lambda m, x: m.head(m.scale(x.bfloat16()).float()), scale=Own(), head=nn.Linear(6, 3)),
        ("scale (Own) in bfloat16",),
    ),
    "torch.jit.script": (lambda: torch.jit.script(plain()), ("hides its layers", "without torch.jit.script or")),
    "torch.jit.trace": (lambda: torch.jit.trace(plain(), torch.rand(2, 6)), ("hides its layers", "torch.jit.trace")),
    "a compiled part": (
        lambda: nn.Sequential(nn.Linear(6, 6), torch.jit.script(plain())),
        ("1 (RecursiveScriptModule)", "hides its layers"),
    ),
    "DataParallel": (lambda: nn.DataParallel(plain()), ("hides its layers", "without nn.DataParallel")),
    "gradient checkpointing": (
        lambda: checkpointed(lambda m, x: m.body(x), nn.Linear(6, 6), nn.ReLU(True)),
        ("body.0.weight", AGAIN),
    ),
    "gradient checkpointing behind a layer": (
        lambda: checkpointed(lambda m, x: m.body[1](m.body[0](x)), nn.Linear(6, 6), nn.LayerNorm(6)),
        ("body.0.weight", AGAIN, "gradient_checkpointing_disable()"),
    ),
    "a call whose result is not used": (
        lambda: Parts(lambda m, x: (m.head(x), m.head(2 * x))[1], head=nn.Linear(6, 3)),
        ("head.weight", AGAIN, "what a call gave is not used"),
    ),
    "a layer that is not used": (
        lambda: Parts(lambda m, x: m.head(x), head=nn.Linear(6, 3), spare=nn.Linear(6, 3)),
        ("without a gradient (spare.weight)", "freeze or remove"),
    ),
}
TAKEN: dict[str, Callable[[], nn.Module]] = {
    "DPLSTM": lambda: recurrent(DPLSTM(2, 4, batch_first=True)),
    "DPGRU": lambda: recurrent(DPGRU(2, 4, batch_first=True)),
    "DPRNN": lambda: recurrent(DPRNN(2, 4, batch_first=True)),
    "DPMultiheadAttention": lambda: attention(DPMultiheadAttention(2, 1, batch_first=True)),
    "frozen lstm": lambda: recurrent(nn.LSTM(2, 4, batch_first=True).requires_grad_(False)),
    "instance norm": lambda: instance_norm(affine=True, statistics=False),
    "parameters of its own": lambda: nn.Sequential(Own(), nn.Linear(6, 3)),
    "tied weights": tied,
    "gradient checkpointing of one layer": lambda: checkpointed(lambda m, x: m.body(x), nn.Linear(6, 6)),
    "gradient checkpointing, reentrant": lambda: checkpointed(
        lambda m, x: m.body(x), nn.Linear(6, 6), nn.Tanh(), reentrant=True
    ),
    "a frozen compiled part": lambda: nn.Sequential(torch.jit.script(plain().requires_grad_(False)), nn.Linear(3, 3)),
    "autocast around frozen layers": lambda: Parts(
        lambda m, x: m.head(m.body(x)),
        body=in_bfloat16(lambda m, x: m.head(x).float()).requires_grad_(False),
        head=nn.Linear(3, 3),
    ),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))),
    "inputs changed in place": lambda: Parts(lambda m, x: m.head(x.sub_(0.5)), head=nn.Linear(6, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_layer_the_true_cause_and_the_remedy(name: str) -> None:
    make, said = REFUSED[name]
    torch.manual_seed(0)
    with pytest.raises(ModelError) as caught:
        refuse_unsuited(make(), torch.zeros(3, 6))
    message = str(caught.value)
    assert [part for part in said if part not in message] == [], message
    assert "\n" not in message
    assert len(message) <= 300
    assert ("group or layer norm" in message) == (name.startswith("batch norm") and "no type" not in name)


@pytest.mark.parametrize("name", TAKEN)
def test_the_remedies_work(name: str) -> None:
    torch.manual_seed(0)
    model = TAKEN[name]()
    refuse_unsuited(model, torch.zeros(3, 6))
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 6), dtype=np.float32), rng.integers(0, 3, 12)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    plan = DpSgdPlan(sampling_rate=0.5, steps=2, noise_multiplier=1.0, clip=1.0)
    train_dp(model, x, y, plan=plan, learning_rate=0.1, momentum=0.0, randomness=Csprng(bytes(32)), micro_batch=4)
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n]) != p.requires_grad
