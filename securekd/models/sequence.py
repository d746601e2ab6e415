"""A network that ends in a small trainable head, taken apart by watching it at work.

Classifiers from libraries keep their head's activations inside `forward` (a tanh here, the first token's features
there), so that no list of their layers tells what happens between two. What enters and leaves each linear layer does.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

ACTIVATIONS = (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, partial(nn.GELU, "tanh"), nn.SiLU, nn.Sigmoid)


class Pooled(nn.Module):
    """What enters a model's head: the model is run, and the input of the head's first layer is kept.

    It holds the model without owning it, so it has no parameters, and stays in inference mode.
    """

    def __init__(self, model: nn.Module, first: nn.Linear) -> None:
        super().__init__()
        self._held = (model, first)
        self.training = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, ...) to features (N, D)."""
        model, first = self._held
        return _watch(model, [first], inputs).entering[0]

    def train(self, mode: bool = True) -> "Pooled":
        """Nothing: the model that it holds has a mode of its own."""
        return self


def as_sequence(model: nn.Module, trial: Tensor) -> nn.Sequential | None:
    """The model as `Pooled` and the layers of its head, or None if it is not that.

    It is, if all trainable parameters are those of linear layers, each used once in a forward pass, on vectors; if
    between two of them just one of `ACTIVATIONS` explains what enters the second; and if the last one gives the logits.

    Args:
        model: in the mode in which it is trained.
        trial: a few random inputs (N, ...); no private ones, since the answer is a property of the model.
    """
    layers = [x for x in model.modules() if type(x) is nn.Linear and any(p.requires_grad for p in x.parameters())]
    owned = {p for layer in layers for p in layer.parameters()}
    if any(p.requires_grad and p not in owned for p in model.parameters()):
        return None
    seen, again = _watch(model, layers, trial), _watch(model, layers, trial)
    if len(seen.order) != len(layers) or len(set(seen.order)) != len(layers) or seen.entering[0].dim() != 2:
        return None
    head: list[nn.Module] = [seen.order[0]]
    for i, (_, following) in enumerate(pairwise(seen.order)):
        fitting = [a for a in (make() for make in ACTIVATIONS) if _same(a(seen.leaving[i]), again.entering[i + 1])]
        if len(fitting) != 1:
            return None
        head += [fitting[0], following]
    if not _same(seen.leaving[-1], again.logits):
        return None
    return nn.Sequential(Pooled(model, seen.order[0]), *head)


@dataclass
class _Seen:
    order: list[nn.Linear] = field(default_factory=list)
    entering: list[Tensor] = field(default_factory=list)
    leaving: list[Tensor] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


def _watch(model: nn.Module, layers: list[nn.Linear], inputs: Tensor) -> _Seen:
    """What goes into and comes out of linear layers, in the order of their use."""
    seen = _Seen()

    def note(layer: nn.Module, entered: tuple[Tensor, ...], left: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        seen.order.append(layer)
        # Copies: an activation in place would overwrite what a layer gave, and seem to be none.
        seen.entering.append(entered[0].clone())
        seen.leaving.append(left.clone())

    hooks: list[RemovableHandle] = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            seen.logits = model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-5, atol=1e-6)
