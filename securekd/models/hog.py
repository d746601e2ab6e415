"""Histograms of oriented gradients under a trainable head: features that no data ever shaped.

Dalal and Triggs 2005 ("Histograms of oriented gradients for human detection"): how much gradient points where, cell by
cell, normalised by what neighbouring cells hold. Nothing is fitted, so nothing leaks, and DP-SGD spends its noise on
the head alone, in closed form.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad

from securekd.errors import ModelError
from securekd.models.public import headed
from securekd.models.shape import SMALLEST_ORIENTED, InputShape

BINS = 12
# Each grid has about so many cells a side: one sees strokes, the other their arrangement.
GRIDS = (7, 4)


class Hog(nn.Module):
    """Frozen histograms of oriented gradients; without a parameter, and the same in training and in inference.

    Colours are averaged. Cells overlap by half, on two grids. An angle's weight is shared by the two bins next to it;
    signed directions count, unlike in Dalal and Triggs, since a stroke's two sides differ. The square root of the
    normalised histogram (Hellinger's map) is scaled to length 1, which bounds a linear head's gradients.
    """

    blur: Tensor
    sobel: Tensor

    def __init__(self) -> None:
        super().__init__()
        binomial = torch.tensor([[1.0, 4.0, 6.0, 4.0, 1.0]]) / 16.0
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4.0
        self.register_buffer("blur", (binomial.T @ binomial)[None, None], persistent=False)
        self.register_buffer("sobel", torch.stack([sobel, sobel.T])[:, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to features (N, D) of length 1; 0 for an image without a gradient."""
        x = images.mean(1, keepdim=True)
        x = 0.5 * x + 0.5 * conv2d(pad(x, (2,) * 4), self.blur)
        histogram = _oriented(conv2d(pad(x, (1,) * 4), self.sobel))
        height, width = images.shape[2:]
        grids = [_cells(histogram, max(1, round(height / n)), max(1, round(width / n))) for n in GRIDS]
        features = torch.cat(grids, 1).clamp(min=0.0).sqrt()
        unit: Tensor = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return unit


def _oriented(gradient: Tensor) -> Tensor:
    """Gradients (N, 2, H, W) to their lengths, shared out among directions (N, BINS, H, W)."""
    across, down = gradient[:, :1], gradient[:, 1:]
    angle = torch.atan2(down, across) / (2.0 * math.pi) % 1.0 * BINS
    bins = torch.arange(BINS, dtype=gradient.dtype, device=gradient.device).view(1, -1, 1, 1)
    apart = (angle - bins).abs()
    share = (1.0 - torch.minimum(apart, BINS - apart)).clamp(min=0.0)
    return share * torch.hypot(across, down)


def _cells(histogram: Tensor, high: int, wide: int) -> Tensor:
    """Mean histograms (N, BINS·cells) of cells that are two steps large, over the energy around them."""
    padded = pad(histogram, (wide // 2, wide // 2, high // 2, high // 2))
    cell = avg_pool2d(padded, (2 * high, 2 * wide), (high, wide))
    energy = 9.0 * avg_pool2d(pad(cell.square().sum(1, keepdim=True), (1,) * 4), 3, 1)
    return (cell / (energy + 1e-3).sqrt()).flatten(1)


def hog(
    shape: InputShape, *, hidden: int | None = None, components: int | None = None, whitening: float = 1.0
) -> nn.Module:
    """A head on histograms of oriented gradients.

    Args:
        shape: of the images.
        hidden: tanh units between; None: the head is linear.
        components: principal components of the transfer set's histograms that it sees; None: the histograms.
        whitening: see `Principal`.

    Raises:
        ModelError: where inputs are no images, or too small.
    """
    channels, height, width = shape.image()
    if not shape.oriented:
        raise ModelError(f"hog needs images of {SMALLEST_ORIENTED} pixels or more, not {height}×{width}")
    features = Hog()
    size = features(torch.zeros(1, channels, height, width)).shape[1]
    return headed([features], size, shape, hidden, components, whitening)
