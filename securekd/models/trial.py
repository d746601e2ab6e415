"""A forward pass that is only tried: it leaves the model and torch's randomness as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Characters that an error keeps of what somebody else's code says, and of what a model gave.
MOST_SAID = 100


@dataclass(frozen=True, eq=False)
class Trial:
    """What a forward pass gave, and the model's buffers after it, by name."""

    output: Any
    buffers: dict[str, Tensor]


@torch.no_grad()
def try_out(model: nn.Module, inputs: Tensor) -> Trial:
    """Call the model, in the mode in which it is, on copies of its buffers and of the inputs (N, ...).

    On the CPU, two trials on inputs of the same shape draw the same random numbers.
    """
    with untouched(model, inputs):
        return Trial(model(inputs.clone()), dict(model.named_buffers()))


@contextmanager
def untouched(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Give the model copies of its buffers, and torch a seed of its own, for as long as something is tried.

    Buffers are exchanged where they are held, which works for models of torch.jit and nn.DataParallel too.
    """
    held = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
    ]
    copies = {id(buffer): buffer.clone() for _, _, buffer in held}  # one that is shared stays shared
    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        torch.default_generator.manual_seed(0)
        try:
            for module, name, buffer in held:
                setattr(module, name, copies[id(buffer)])
            yield
        finally:
            for module, name, buffer in held:
                setattr(module, name, buffer)


def reason(error: Exception) -> str:
    """What an error of somebody else's code says, in a part of a line."""
    return cut(str(error).splitlines()[0] if str(error) else type(error).__name__)


def cut(text: str) -> str:
    """The text's beginning, where it is longer than an error should be."""
    return text if len(text) <= MOST_SAID else f"{text[: MOST_SAID - 1].rstrip()}…"
