"""Clipped gradients of a head on fixed features, without the gradient of any one example.

For a linear layer z = W·a + b and δ = ∂loss/∂z, an example's gradients are the outer product δ·aᵀ and δ: their norm is
‖δ‖·√(‖a‖² + 1), and the sum of clipped ones is a single matrix product of rescaled δ and a (Goodfellow 2015,
arXiv:1510.01799). What the hooks need for each example, a copy of all parameters, is never made.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from securekd.learning.dp.mechanism import factors_of

# An example with an activation vector longer than this counts as not finite: float32 could not hold its rescaled δ to
# the last bit, and the clip would not be exact.
LONGEST = 1e30


Loss = Literal["cross_entropy", "class_sums"]
"""Of an example: its cross-entropy, or minus the logit of its class."""


@dataclass(frozen=True, eq=False)
class Features:
    """Fixed features with what is asked of them in every step.

    Attributes:
        values: (N, D).
        lengths: √(‖a‖² + 1), or ‖a‖ where the layer that they enter has no bias: a gradient's norm for ‖δ‖ = 1;
            float64 (N, 1), infinite beyond `LONGEST`.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, values: Tensor, head: nn.Sequential) -> "Features":
        """The features that enter `head`; a few thousand rows at a time become float64."""
        bias = _linear_layers(head)[0].bias is not None
        return cls(values, torch.cat([_lengths(part, bias) for part in torch.split(values, 4096)]))

    def __getitem__(self, rows: Tensor) -> "Features":
        return Features(self.values.index_select(0, rows), self.lengths.index_select(0, rows))


@dataclass(frozen=True, eq=False)
class Product:
    """One layer's share of the clipped sums, not multiplied out.

    Attributes:
        layer: W (out, in), and b (out,) where it has one.
        scaled: each example's δ times its factor (B, out).
        entering: each example's a (B, in).
    """

    layer: nn.Linear
    scaled: Tensor
    entering: Tensor


@dataclass(frozen=True, eq=False)
class ClippedSums:
    """Sums over a batch of the examples' clipped gradients.

    Attributes:
        products: one for each linear layer.
        zeroed: examples whose gradient was not finite; they count as zero.
    """

    products: tuple[Product, ...]
    zeroed: int

    def add_to(self, totals: dict[Tensor, Tensor], decay: float) -> None:
        """Make each parameter's entry of `totals`, in place, `decay` times what it was and the parameter's sum."""
        for product in self.products:
            totals[product.layer.weight].addmm_(product.scaled.T, product.entering, beta=decay)
            if product.layer.bias is not None:
                ones = product.scaled.new_ones(len(product.scaled))
                totals[product.layer.bias].addmv_(product.scaled.T, ones, beta=decay)


def clipped_sums(
    head: nn.Sequential, features: Features, labels: Tensor, clip: float, loss: Loss = "cross_entropy"
) -> ClippedSums:
    """The examples' gradients, each clipped over all parameters together, and summed.

    Args:
        head: linear layers and elementwise activations, as `split_frozen` gives it.
        features: of the batch (B, D); B may be 0.
        labels: classes (B,).
        clip: C, the L2 norm that no example's gradient exceeds.
        loss: whose gradients.
    """
    inputs, deltas = _backward(head, features.values, labels, loss)
    layers = _linear_layers(head)
    lengths = [
        features.lengths,
        *(_lengths(a, x.bias is not None) for a, x in zip(inputs[1:], layers[1:], strict=True)),
    ]
    norms = reduce(torch.hypot, [_norms(delta) * length for delta, length in zip(deltas, lengths, strict=True)])
    factor = factors_of(norms, clip)
    zeroed = len(factor) - int(factor.count_nonzero())
    scale = factor.to(features.values.dtype)
    if zeroed:  # 0 times infinity would not be 0
        inputs = [entering.masked_fill(scale == 0, 0.0) for entering in inputs]
        deltas = [delta.masked_fill(scale == 0, 0.0) for delta in deltas]
    products = [
        Product(layer, delta.mul_(scale), entering)
        for layer, entering, delta in zip(layers, inputs, deltas, strict=True)
    ]
    return ClippedSums(tuple(products), zeroed)


def zero_sums(head: nn.Sequential, device: torch.device) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """Zeros for all parameters in one row (P,), to which noise is added, and each parameter's view of it."""
    sizes = [p.numel() for p in head.parameters()]
    flat = torch.zeros(sum(sizes), device=device)
    return flat, {p: part.view_as(p) for p, part in zip(head.parameters(), torch.split(flat, sizes), strict=True)}


@torch.enable_grad()
def _backward(head: nn.Sequential, features: Tensor, labels: Tensor, loss: Loss) -> tuple[list[Tensor], list[Tensor]]:
    """What enters each linear layer (B, in), and each example's δ at its output (B, out)."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    x = features
    for layer in head:
        if isinstance(layer, nn.Linear):
            inputs.append(x.detach())
            x = linear(x, layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
            outputs.append(x if x.requires_grad else x.requires_grad_())
        else:
            x = layer(x)
    # One less at an example's class than the probabilities, or than nothing.
    last = x.detach().softmax(1) if loss == "cross_entropy" else torch.zeros_like(x.detach())
    last.scatter_add_(1, labels.unsqueeze(1), last.new_full((len(labels), 1), -1.0))
    # Examples do not touch each other, so each row of an earlier δ is an example's own too.
    earlier = torch.autograd.grad(x, outputs[:-1], last) if outputs[:-1] else ()
    return inputs, [*earlier, last]


def _linear_layers(head: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in head if isinstance(layer, nn.Linear)]


def _lengths(entering: Tensor, bias: bool) -> Tensor:
    norms = _norms(entering)
    lengths = torch.hypot(norms, torch.ones_like(norms)) if bias else norms
    return torch.where(norms <= LONGEST, lengths, torch.inf)  # a NaN becomes infinite too


def _norms(rows: Tensor) -> Tensor:
    """L2 norms of rows (B, D), summed in float64: (B, 1)."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    return norms
