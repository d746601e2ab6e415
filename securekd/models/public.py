"""Layers that are fitted on the public transfer set, and never trained: what they take from it no private row shapes.

A network is built before anybody has looked at the transfer set, with such layers blank: then they only know how many
features they will give. `fit_public` fits them, one after the other, and `give_public` hands them to another network
that is built alike. They are no weights: nothing trains, clips, averages or releases them.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.shape import InputShape

# Rows that pass through a layer at a time.
ROWS = 512

# Of what a row of the transfer set has on average: shorter ones are mostly rounding.
SHORTEST = 0.01

LENGTH = 4.0
"""Of each row of principal components: a head's gradients then reach a clip of 1, and stand out of the noise."""


class PublicLayer(nn.Module):
    """A layer that is fitted on public inputs; without a parameter, and the same in training and in inference.

    Until it is fitted it is blank, and gives features that say next to nothing.

    Attributes:
        takes: names of what it takes from the transfer set, which are its buffers.
        size: number of features that it gives.
        white: whether these have `LENGTH`, and about the same second moment each on the transfer set.
    """

    takes: ClassVar[tuple[str, ...]]
    white: bool = False

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        for name in self.takes:
            self.register_buffer(name, None, persistent=False)

    @property
    def blank(self) -> bool:
        """Whether it has yet to be fitted."""
        return any(getattr(self, name) is None for name in self.takes)

    def fit(self, inputs: Tensor) -> dict[str, Tensor]:
        """What it takes from public inputs (m, ...), by name.

        Raises:
            ModelError: They do not have what is asked for.
        """
        raise NotImplementedError

    def refuse_unfit(self) -> None:
        """Refuse what it was given, where that cannot be what one of its kind has taken.

        Raises:
            ModelError: with what is wrong.
        """

    def features(self, inputs: Tensor) -> Tensor:
        """Features (N, size) of inputs (N, ...), once it is fitted."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (N, size) of inputs (N, ...)."""
        if self.blank:
            return inputs.flatten(1).float().mean(1, keepdim=True).expand(-1, self.size)
        return self.features(inputs)


def fit_public(network: nn.Module, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Fit a network's public layers, in place, and give what they took, by name; empty where it has none.

    Args:
        network: a sequence with its public layers before the first trainable one.
        inputs: of the transfer set (m, ...).

    Raises:
        ModelError: as the layers say.
    """
    unfitted = len(_layers(network))
    if not unfitted:
        return {}
    if not isinstance(network, nn.Sequential):
        raise ModelError(
            f"{type(network).__name__} has layers that are fitted on the transfer set, and is no nn.Sequential"
        )
    if not np.isfinite(inputs).all():
        raise ModelError(
            "the transfer set has inputs that are not finite, and models are fitted on it; mend these rows"
        )
    x = torch.tensor(inputs)
    found: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for name, layer in network.named_children():
            if isinstance(layer, PublicLayer):
                taken = layer.fit(x)
                _give(layer, taken)
                found |= {f"{name}.{key}": value.numpy() for key, value in taken.items()}
                unfitted -= 1
            if not unfitted:  # what comes after sees no transfer row
                break
            x = torch.cat([layer(part) for part in torch.split(x, ROWS)])
    return found


def give_public(network: nn.Module, public: Mapping[str, np.ndarray]) -> None:
    """Hand a network, in place, what another one that is built alike took from the transfer set.

    Raises:
        ModelError: Something else was taken than its layers take.
    """
    wanted = public_names(network)
    if wanted != public.keys():
        lacking = ", ".join(sorted(wanted ^ public.keys()))
        raise ModelError(f"this model was fitted otherwise on the transfer set ({lacking}); fit it anew")
    for name, layer in _layers(network).items():
        _give(layer, {key: torch.from_numpy(np.array(public[f"{name}.{key}"])) for key in layer.takes})
        layer.refuse_unfit()


def public_of(network: nn.Module) -> dict[str, Tensor]:
    """What a network's layers took from the transfer set, by name."""
    return {f"{name}.{key}": getattr(layer, key) for name, layer in _layers(network).items() for key in layer.takes}


def public_names(network: nn.Module) -> frozenset[str]:
    """The names of what a network's layers take from the transfer set, blank or not."""
    return frozenset(f"{name}.{key}" for name, layer in _layers(network).items() for key in layer.takes)


def _layers(network: nn.Module) -> dict[str, PublicLayer]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, PublicLayer)}


def _give(layer: PublicLayer, taken: Mapping[str, Tensor]) -> None:
    for name in layer.takes:
        setattr(layer, name, taken[name])


class Principal(PublicLayer):
    """The principal components of the transfer set's features, brought to one length row by row.

    A head on few directions gets less of DP-SGD's noise than one on many.

    Args:
        components: K, how many are kept.
        whitening: exponent of the standard deviation that each is divided by: 0 keeps lengths, 1 makes all alike.
    """

    takes = ("mean", "axes")
    mean: Tensor
    axes: Tensor

    def __init__(self, components: int, whitening: float) -> None:
        super().__init__(checked(components, "components"))
        if not isinstance(whitening, int | float) or not 0 <= whitening <= 1:
            raise ModelError(f"whitening = {whitening!r} is no number from 0 (as they are) to 1 (all alike)")
        self.whitening = whitening
        self.white = whitening == 1.0

    def fit(self, inputs: Tensor) -> dict[str, Tensor]:
        """Mean (D,) and scaled axes (D, K) of features (m, D).

        Raises:
            ModelError: The rows do not span as many directions.
        """
        x = inputs.double()
        mean = x.mean(0)
        values, axes = _principal(x - mean)
        spanned = int((values > 1e-10 * values.max().clamp(min=1e-300)).sum())
        if not spanned:
            raise ModelError(
                f"components = {self.size}, and the features of the {len(x)} rows of the transfer set are all alike; "
                "take another model, or other rows"
            )
        if spanned < self.size:
            raise ModelError(
                f"components = {self.size} is more than the {spanned} directions that the {len(x)} rows of the "
                "transfer set span; lower it, or raise data.transfer"
            )
        axes = axes[:, : self.size] / values[: self.size] ** (self.whitening / 2.0)
        axes = axes * (LENGTH / ((x - mean) @ axes).square().sum(1).mean().sqrt())
        return {"mean": mean.float(), "axes": axes.float().contiguous()}

    def refuse_unfit(self) -> None:
        """Refuse a mean and axes that do not belong together."""
        if self.mean.dim() != 1 or self.axes.shape != (len(self.mean), self.size):
            raise ModelError("the principal components of this model are damaged; fit it anew")

    def features(self, inputs: Tensor) -> Tensor:
        """Features (N, D) to (N, K), each row of `LENGTH`, but for what is so near to the mean that it says nothing."""
        x = (inputs - self.mean) @ self.axes
        length: Tensor = x.norm(dim=1, keepdim=True)
        return x * (LENGTH / length.clamp(min=SHORTEST * LENGTH))


def checked(count: object, name: str) -> int:
    """An option that counts something.

    Raises:
        ModelError: It is none.
    """
    if type(count) is not int or count < 1:
        raise ModelError(f"{name} = {count!r} is no number from 1")
    return count


def headed(
    features: list[nn.Module],
    size: int,
    shape: InputShape,
    hidden: int | None,
    components: int | None,
    whitening: float,
) -> nn.Sequential:
    """A head on public features: linear, or with a hidden layer of tanh units.

    Args:
        features: layers that give them, in order.
        size: their number.
        shape: of inputs and classes.
        hidden: units of the hidden layer; None: there is none.
        components: principal components of the features that are seen instead; None: they themselves.
        whitening: see `Principal`.
    """
    if components is not None:
        features, size = [*features, Principal(components, whitening)], components
    if hidden is None:
        return nn.Sequential(*features, nn.Linear(size, shape.classes))
    return nn.Sequential(*features, nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, shape.classes))


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, descending, and axes (D, K) of centred rows (m, D), by the smaller of the two moment matrices.

    An axis' sign is that with which its largest entry is positive, so that it is the same on every machine.
    """
    m, d = x.shape
    if d <= m:
        values, axes = torch.linalg.eigh(x.T @ x / m)
    else:
        values, left = torch.linalg.eigh(x @ x.T / m)
        axes = x.T @ left / (values.clamp(min=1e-300) * m).sqrt()
    values, axes = values.flip(0), axes.flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    signs: Tensor = torch.where(largest < 0, -1.0, 1.0)
    return values, axes * signs
