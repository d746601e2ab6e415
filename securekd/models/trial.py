"""A forward pass that is only tried: it leaves the model and torch's randomness as they were."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


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
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        torch.default_generator.manual_seed(0)
        output = functional_call(model, buffers, (inputs.clone(),))
    return Trial(output, buffers)
