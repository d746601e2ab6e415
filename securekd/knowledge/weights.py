"""Weight updates, the knowledge that clients let go of in federated averaging: what a model's training changed.

A vector holds the trainable weights alone, in the order of the model's parameters: frozen ones are alike everywhere.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from securekd.checkpoint import Arrays
from securekd.errors import MixedArchitecturesError, ModelError, RunError
from securekd.knowledge.bounded import HAIR, Bounded, weighted, weighted_mean
from securekd.privacy.mechanisms import Bounds
from securekd.settings.models import Model


@dataclass(frozen=True)
class WeightUpdateShape:
    """Shape and bounds of every client's weight update in a round: public, and the same for all.

    Attributes:
        size: trainable weights d.
        clip: L2 norm of a whole update at most.
        weight_cap: examples at which a client's weight is capped to 1; None for equal weights.
    """

    size: int
    clip: float
    weight_cap: int | None = None

    rows: ClassVar[int] = 0
    parts: ClassVar[int] = 1
    unit: ClassVar[int] = 1

    @property
    def length(self) -> int:
        """Entries of the vector: d, and one for the weight where weights are used."""
        return self.size + (self.weight_cap is not None)

    @property
    def bounds(self) -> Bounds:
        """What bounds one client's vector; its length counts from a client that sends zeros."""
        l2, l1 = self.clip, self.clip * math.sqrt(self.size)
        if self.weight_cap is not None:
            l2, l1 = math.hypot(l2, self.clip), l1 + self.clip
        return Bounds(l2, l1, self.clip, self.length)

    @property
    def weight_bound(self) -> float:
        """What a weight of 1 is in the vector."""
        return self.clip

    @property
    def unclipped(self) -> "WeightUpdateShape":
        """The same weights with nothing that bounds an update, and no weight: what a client has before its clip."""
        return replace(self, clip=math.inf, weight_cap=None)

    def mean(self, total: np.ndarray, survivors: float) -> np.ndarray:
        """The mean of the survivors' updates (d,), from the (noisy) sum of their vectors."""
        if self.weight_cap is None:
            return total / survivors
        return weighted_mean(total, self.clip, self.weight_cap)


def weight_update(
    before: np.ndarray,
    after: np.ndarray,
    shape: WeightUpdateShape,
    *,
    examples: int,
    nonfinite: Literal["zero", "refuse"] = "zero",
) -> Bounded:
    """Bound what training changed: its L2 norm is clipped as a whole (McMahan et al. 2018, section 2, flat clipping).

    Args:
        before: trainable weights of the global model (d,).
        after: those of the client's (d,).
        shape: size and bounds.
        examples: the client's number of private examples, which sets its weight where weights are used.
        nonfinite: what becomes of an update with a NaN or infinite weight.

    Raises:
        RunError: for such an update, where it is to be refused.
    """
    change = after - before
    finite = bool(np.isfinite(change).all())
    if not finite and nonfinite == "refuse":
        raise RunError(
            "a client's update has a NaN or infinite weight (release.nonfinite = 'refuse'); lower the learning rate, "
            "or send it as zeros with release.nonfinite = 'zero'"
        )
    change = np.clip(change, -1e100, 1e100) if finite else np.zeros(shape.size)
    norm = float(np.linalg.norm(change))
    vector = change * min(1.0, shape.clip * HAIR / max(norm, 1e-300))
    if shape.weight_cap is not None:
        vector = weighted(vector, shape.clip, examples, shape.weight_cap)
    return Bounded(vector, int(norm > shape.clip), int(not finite))


def trainable_weights(network: nn.Module) -> np.ndarray:
    """The trainable weights of a network as one vector (d,), float64."""
    return torch.cat([p.detach().reshape(-1).double().cpu() for p in _trainable(network)]).numpy()


@torch.no_grad()
def set_trainable_weights(network: nn.Module, vector: np.ndarray) -> None:
    """Give a network, in place, the trainable weights of a vector (d,)."""
    parameters = _trainable(network)
    parts = torch.split(torch.from_numpy(vector), [p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.copy_(part.view_as(parameter))


def model_digest(state: Arrays) -> bytes:
    """SHA-256 of a model's weights: what the clients of a session must have started from."""
    digest = hashlib.sha256(b"securekd/global-model/1")
    for name in sorted(state):
        array = np.ascontiguousarray(state[name], dtype=state[name].dtype.newbyteorder("<"))
        digest.update(f"{len(name)}:{name}:{array.dtype.str}:{array.shape}:".encode())
        digest.update(array.data)
    return digest.digest()


def refuse_mixed(student: Model, clients: Iterable[tuple[str, Model]]) -> None:
    """Refuse to average the weights of models that are not all built alike.

    Raises:
        MixedArchitecturesError: with the clients whose model is not the student's.
    """
    differ = [
        f"{name} ({model.kind if model.kind != student.kind else f'{model.kind} with {model.options}'})"
        for name, model in clients
        if (model.kind, model.options) != (student.kind, student.options)
    ]
    if differ:
        wanted = f"{student.kind!r}{f' with {student.options}' if student.options else ''}"
        raise MixedArchitecturesError(
            f"strategy = 'fedavg' averages weights, so every client needs the student's model, {wanted}; others have: "
            f"{', '.join(differ)}; set clients.models and student.model alike, or strategy = 'distil', which mixes them"
        )


def refuse_statistics(network: nn.Module, inputs: Tensor) -> None:
    """Refuse a model with state that training moves beside its weights: nothing would clip, average or noise it.

    Raises:
        ModelError: with the first buffer that changes in a training step.
    """
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    with torch.no_grad():
        network(inputs)
    for name, buffer in network.named_buffers():
        if not torch.equal(before[name], buffer):
            raise ModelError(
                f"{type(network).__name__} keeps statistics of its batches ({name}), which strategy = 'fedavg' cannot "
                "average; use group or layer norm"
            )


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]
