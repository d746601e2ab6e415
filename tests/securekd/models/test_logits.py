"""What a user's model may give: logits, or what holds them unmistakably; the rest is refused where it is built."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from securekd.errors import ModelError
from securekd.learning.dp.suited import refuse_unsuited
from securekd.learning.plain import train_plain
from securekd.models.folder import load_student, save_model
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.settings.models import Model

TABLE = InputShape("tabular", (6,), 3)
Named = namedtuple("Named", ["loss", "logits"])


@dataclass
class Output:
    """A user's own kind of output."""

    logits: Tensor


class Giving(nn.Module):
    """A linear model that gives what `GIVEN[kind]` makes of its logits."""

    def __init__(self, shape: InputShape, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.head = nn.Linear(6, shape.classes)

    def forward(self, x: Tensor) -> Any:
        return GIVEN[self.kind](self, self.head(x))


def explain(text: str) -> Any:
    raise RuntimeError(text)


TAKEN: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "tensor": lambda m, z: z,
    "tuple of one": lambda m, z: (z,),
    "tuple with hidden states": lambda m, z: (z, z.repeat(1, 3), None),
    "list": lambda m, z: [z],
    "dict": lambda m, z: {"loss": z.sum(), "logits": z},
    "named tuple": lambda m, z: Named(loss=z.sum(), logits=z),
    "dataclass": lambda m, z: Output(z),
    "object": lambda m, z: SimpleNamespace(logits=z, aux=z),
    "model output": lambda m, z: SequenceClassifierOutput(logits=z),
    "auxiliary logits in training alone": lambda m, z: Named(z, z) if m.training else z,
}
REFUSED: dict[str, tuple[Callable[[nn.Module, Tensor], Any], str]] = {
    "a dict without logits": (lambda m, z: {"scores": z}, r"a dict of 'scores': a tensor \(2, 3\)"),
    "two that could be": (lambda m, z: (z, z.softmax(1)), "more than one could be the logits"),
    "the loss first": (lambda m, z: (z.sum(), z), r"a tuple of a tensor \(\), a tensor \(2, 3\)"),
    "a dict of dicts": (lambda m, z: {"logits": {"a": z}}, r"'logits': a dict of 'a'"),
    "an empty tuple": (lambda m, z: (), "a tuple of nothing"),
    "nothing": (lambda m, z: None, "a NoneType"),
    "numbers": (lambda m, z: z.tolist(), "a list of a list of a float"),
    "a class too many": (lambda m, z: torch.cat([z, z[:, :1]], 1), r"a tensor \(2, 4\) for 2 inputs"),
    "a dimension too many": (lambda m, z: z.unsqueeze(2), r"a tensor \(2, 3, 1\)"),
    "a mean over the batch": (lambda m, z: z.mean(0, keepdim=True), r"a tensor \(1, 3\)"),
    "squeezed": (lambda m, z: z.squeeze(), r"a tensor \(3,\) for 1 input alone"),
    "classes": (lambda m, z: z.argmax(1), r"a tensor \(2,\)"),
    "integers": (lambda m, z: z.long(), "int64"),
    "truth values": (lambda m, z: z > 0, "bool"),
    "complex numbers": (lambda m, z: z.to(torch.complex64), "complex64"),
    "nan": (lambda m, z: z / 0.0 * 0.0, "NaN or infinite"),
    "minus infinity": (lambda m, z: (z * 0.0).log(), "NaN or infinite"),
    "nan in training": (lambda m, z: z * torch.nan if m.training else z, "in training mode"),
    "fifty tensors": (lambda m, z: {f"layer{i}": z for i in range(50)}, r"'layer0': a tensor \(2, 3\), .*… for 2"),
    "a tuple of fifty": (lambda m, z: (z[0], *[z] * 50), r"a tuple of a tensor \(3,\), .*… for 2"),
    "a sparse tensor": (lambda m, z: z.to_sparse(), r"a sparse tensor \(2, 3\) for 2 inputs; let .* to_dense"),
    "a sparse tensor by rows": (lambda m, z: z.to_sparse_csr(), "a sparse tensor"),
    "a long error": (
        lambda m, z: explain("why " * 500) if m.training else z,
        "in training mode: why why.*…; one input",
    ),
    "an error for one input": (lambda m, z: z * z.flatten()[3] / z.flatten()[3], "1 input alone: index 3"),
}
GIVEN = TAKEN | {name: make for name, (make, _) in REFUSED.items()}


def giving(kind: str) -> Model:
    return Model(kind="tests.securekd.models.test_logits:Giving", options={"kind": kind})


@pytest.mark.parametrize("kind", TAKEN)
def test_logits_are_taken_out_of_what_a_model_gives(kind: str) -> None:
    network, x = build(giving(kind), TABLE, seed=1), torch.rand(5, 6)
    assert list(network.state_dict()) == ["head.weight", "head.bias"]
    for mode in (True, False):
        assert torch.equal(network.train(mode)(x), network.head(x))
    refuse_unsuited(network, torch.zeros(3, 6))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_holds_no_logits_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ModelError, match=REFUSED[kind][1]) as caught:
        build(giving(kind), TABLE, seed=1)
    message = str(caught.value)
    assert message.startswith("model 'tests.securekd.models.test_logits:Giving' (Giving) gives")
    assert "\n" not in message
    assert len(message) <= 300


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "script": torch.jit.script,
    "trace": lambda network: torch.jit.trace(network, torch.rand(2, 6), check_trace=False),
    "data parallel": nn.DataParallel,
    "a part": lambda network: nn.Sequential(torch.jit.script(network)),
}


def wrapped(shape: InputShape, *, how: str) -> nn.Module:
    """A model with a buffer that training changes, compiled or wrapped."""
    return WRAPPED[how](nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, shape.classes)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", WRAPPED)
def test_a_compiled_or_wrapped_model_trains_without_privacy(how: str, tmp_path: Path) -> None:
    model = Model(kind="tests.securekd.models.test_logits:wrapped", options={"how": how})
    network = build(model, TABLE, seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    looked_at = [value for name, value in before.items() if "running_mean" in name]
    assert how == "trace" or not looked_at[0].any()  # tracing runs the model; nothing else did that left a trace
    rng = np.random.default_rng(0)
    x, y = rng.random((9, 6), dtype=np.float32), rng.integers(0, 3, 9)
    train_plain(network, x, y, epochs=2, batch_size=4, learning_rate=0.1, randomness=rng)
    for name, value in network.state_dict().items():
        assert value.isfinite().all()
        assert not torch.equal(value, before[name])
    save_model(network, model, TABLE, ("a", "b", "c"), tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(
            load_student(tmp_path / "model", [model.kind])(torch.from_numpy(x)), network(torch.from_numpy(x))
        )


def no_module(shape: InputShape) -> dict[str, int]:
    """What is no network."""
    return {"classes": shape.classes}


def test_a_constructor_that_gives_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"gives a dict, not a torch\.nn\.Module"):
        build(Model(kind="tests.securekd.models.test_logits:no_module"), TABLE, seed=0)


@pytest.mark.parametrize("kind", ["dict", "tuple with hidden states", "named tuple", "model output"])
def test_a_student_that_gives_more_than_logits_is_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    network, x = build(giving(kind), TABLE, seed=1), torch.rand(5, 6)
    save_model(network, giving(kind), TABLE, ("a", "b", "c"), tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(load_student(tmp_path / "model", [giving(kind).kind])(x), network(x))


def normed(shape: InputShape) -> nn.Module:
    """A model with dropout and statistics, which the trial must leave as they were."""
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, shape.classes))


def test_trying_a_model_out_leaves_its_buffers_its_mode_and_torchs_randomness_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = build(Model(kind="tests.securekd.models.test_logits:normed"), TABLE, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    assert int(network[1].num_batches_tracked) == 0
    assert torch.equal(network[1].running_mean, torch.zeros(4))


def statistics_of_the_batch(shape: InputShape) -> nn.Module:
    """Batch norm without running statistics: no single input has an answer."""
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, shape.classes))


def test_a_model_that_cannot_tell_about_one_input_is_refused() -> None:
    with pytest.raises(ModelError, match="for 1 input alone: Expected more than 1 value per channel"):
        build(Model(kind="tests.securekd.models.test_logits:statistics_of_the_batch"), TABLE, seed=1)
