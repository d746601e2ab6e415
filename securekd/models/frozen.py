"""Models whose features are fixed and whose head alone is trained: found here, and their features computed once."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.builtin import Centre
from securekd.models.hog import Hog
from securekd.models.public import PublicLayer

# Functions of one number at a time, the same in training and in inference.
ELEMENTWISE = (
    nn.ELU,
    nn.GELU,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
)

# Layers that give the same in training and in inference, and treat each example by itself.
STEADY = (
    *ELEMENTWISE,
    Centre,
    Hog,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.Conv2d,
    nn.Flatten,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Linear,
    nn.MaxPool2d,
    nn.Sequential,
)


@dataclass(frozen=True, eq=False)
class Split:
    """A model as head(features(inputs)).

    Attributes:
        features: inputs (N, ...) to features (N, D); without a trainable parameter, and the same at every call.
        head: `nn.Linear` with every parameter trainable, and elementwise activations, none in place; shares its
            parameters with the model.
    """

    features: nn.Module
    head: nn.Sequential


# How the features of inputs (N, ...) are had: (N, D), computed or found.
Encode = Callable[[Split, Tensor], Tensor]


@runtime_checkable
class Sequenced(Protocol):
    """A model that knows itself as a sequence of layers, though it is not written as one."""

    def as_sequence(self) -> nn.Sequential | None:
        """The same network, sharing its layers; None where it is no sequence."""


def split_frozen(model: nn.Module) -> Split | None:
    """The model as fixed features and a trainable head, or None where it is something else.

    The features are all layers before the first trainable parameter. They count as fixed where each layer is in
    inference mode or of a type that is the same in both modes, so the model has to be in the mode in which it is
    trained. The head may hold no layer but linear ones and elementwise activations, none of them used twice.

    Args:
        model: gives logits (N, classes).
    """
    sequence = model.as_sequence() if isinstance(model, Sequenced) else model
    if sequence is None:
        return None
    layers = [layer for layer in _flat(sequence) if not _idle(layer)]
    first = next((i for i, layer in enumerate(layers) if _trainable(layer)), len(layers))
    features, head = layers[:first], layers[first:]
    linear = [layer for layer in head if type(layer) is nn.Linear]
    if not linear or len(set(linear)) < len(linear):
        return None
    if not all(_of_a_head(layer) for layer in head) or not all(_fixed(layer) for layer in features):
        return None
    return Split(nn.Sequential(*features), nn.Sequential(*map(_apart, head)))


def split_linear(model: nn.Module) -> tuple[Split, nn.Linear]:
    """The model as fixed features and a single linear layer with a bias, and that layer.

    Raises:
        ModelError: It is something else.
    """
    split = split_frozen(model)
    head = list(split.head) if split is not None else []
    if split is None or len(head) != 1 or not isinstance(head[0], nn.Linear) or head[0].bias is None:
        raise ModelError(
            f"{type(model).__name__} is no linear head on fixed features, and only that has a closed form: take "
            "kernel, hog, tfidf or logistic without a hidden layer, or another loss"
        )
    return split, head[0]


def compute_features(split: Split, inputs: Tensor, *, micro_batch: int, device: str) -> Tensor:
    """Features (N, D) of all inputs (N, ...), `micro_batch` at a time, on `device`."""
    with torch.no_grad():
        parts = [split.features(part.to(device)) for part in torch.split(inputs, micro_batch)]
    return torch.cat(parts)


def has_encoder(model: nn.Module) -> bool:
    """Whether a model's fixed features are worth keeping: they are more than a mere centring or flattening."""
    frozen = any(not p.requires_grad for p in model.parameters())
    return frozen or any(isinstance(x, Hog | PublicLayer) for x in model.modules())


def _flat(layer: nn.Module) -> Iterator[nn.Module]:
    if type(layer) is nn.Sequential:
        for inner in layer:
            yield from _flat(inner)
    else:
        yield layer


def _idle(layer: nn.Module) -> bool:
    return type(layer) is nn.Dropout and (layer.p == 0.0 or not layer.training)


def _trainable(layer: nn.Module) -> bool:
    return any(p.requires_grad for p in layer.parameters())


def _of_a_head(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear:
        return all(p.requires_grad for p in layer.parameters())
    return type(layer) in ELEMENTWISE


def _apart(layer: nn.Module) -> nn.Module:
    """A layer that leaves its input as it is: in place, it would overwrite the output whose gradient is wanted."""
    if not getattr(layer, "inplace", False):
        return layer
    twin = copy(layer)
    twin.inplace = False  # type: ignore[assignment]
    return twin


def _fixed(layer: nn.Module) -> bool:
    return all(
        not inner.training or type(inner) in STEADY or isinstance(inner, PublicLayer) for inner in layer.modules()
    )
