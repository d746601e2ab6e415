"""Models of the user's, held to `inputs -> logits`: where logits come with other things they are taken out, by name.

What a model gives is tried out once, where it is built, so that a wrong shape does not end a run half-way.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.shape import InputShape
from securekd.models.trial import cut, reason, try_out

REMEDY = "let forward return the logits, or a dict or an object that calls them 'logits'"


def give_logits(network: nn.Module, shape: InputShape, name: str) -> None:
    """Make `network` give its logits alone, in both modes.

    Taken are a tensor; the entry or attribute `logits` of a dict or an object; the first element of a tuple or list, if
    no other one could be the logits too. Parameters keep their names. The network is left in inference mode.

    Args:
        network: initialised.
        shape: of inputs and classes.
        name: of the model, for errors.

    Raises:
        ModelError: with what the model gave, where that is something else.
    """
    drawn = draw(shape, 2)
    alone = True
    for training, rows, where in (
        (False, 2, "for 2 inputs"),
        (False, 1, "for 1 input alone"),
        (True, 2, "for 2 inputs in training mode"),
    ):
        try:
            output = try_out(network.train(training), drawn[:rows]).output
        except Exception as error:  # a forward pass may raise anything
            raise ModelError(
                f"{name} gives nothing {where}: {reason(error)}; one input must be enough, and two at a time"
            ) from error
        _refuse(output, (rows, shape.classes), f"{name} gives", where)
        alone = alone and isinstance(output, Tensor)
    network.eval()
    if not alone:
        network.register_forward_hook(_taken)


def logits_of(output: Any) -> Any:
    """The logits among what a model gave; what is not known is given back as it is."""
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if named is not None:
        return named
    return output[0] if isinstance(output, tuple | list) and output else output


def _taken(network: nn.Module, inputs: Any, output: Any) -> Any:
    return logits_of(output)


def _refuse(output: Any, expected: tuple[int, int], gives: str, where: str) -> None:
    logits = logits_of(output)
    if not isinstance(logits, Tensor):
        raise ModelError(f"{gives} {cut(_described(output))} {where}, not {expected} logits; {REMEDY}")
    if logits.layout is not torch.strided:
        raise ModelError(f"{gives} a sparse tensor {tuple(logits.shape)} {where}; let forward return its to_dense()")
    if tuple(logits.shape) != expected:
        raise ModelError(
            f"{gives} {cut(_described(output))} {where}, not {expected} logits, one for each class; {REMEDY}"
        )
    plain = isinstance(output, tuple | list) and output[0] is logits and getattr(output, "logits", None) is not logits
    if plain and sum(isinstance(x, Tensor) and x.shape == logits.shape for x in output) > 1:
        raise ModelError(
            f"{gives} {cut(_described(output))} {where}, of which more than one could be the logits; {REMEDY}"
        )
    if not logits.is_floating_point():
        raise ModelError(
            f"{gives} {str(logits.dtype).removeprefix('torch.')} {where}, and logits are real numbers that have a "
            "gradient; let forward return what enters the softmax or argmax"
        )
    if not logits.isfinite().all():
        raise ModelError(
            f"{gives} NaN or infinite logits {where}, which were random inputs; look for a division by zero, a "
            "logarithm, or weights that are not initialised"
        )


def _described(output: Any) -> str:
    """What a model gave, in a few words."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} of {', '.join(f'{key!r}: {_described(x)}' for key, x in output.items()) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"a {kind} of {', '.join(_described(x) for x in output) or 'nothing'}"
    named = getattr(output, "logits", None)
    return f"a {kind}" if named is None else f"a {kind} with logits {_described(named)}"


def draw(shape: InputShape, count: int) -> Tensor:
    """Random inputs (count, ...), always the same."""
    generator, size = torch.Generator().manual_seed(0), (count, *shape.dimensions)
    if shape.modality == "text":
        return torch.randint(1, max(shape.vocabulary, 2), size, generator=generator)
    return torch.rand(size, generator=generator)
