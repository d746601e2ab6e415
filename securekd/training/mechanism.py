"""DP-SGD's mechanism (Abadi et al. 2016) but for the gradients: the factor that clips an example, and the noise.

Both ways to per-example gradients go through here: Opacus' hooks (`dp_sgd`) and the closed form (`closed_form`).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from securekd.randomness import Csprng

# Clipping stops this far below C, which covers the rounding of float32 products; norms themselves are float64.
CLIP_MARGIN = 1.0 - 1e-6


def factors_of(squares: Tensor, clip: float) -> Tensor:
    """The factor that brings each example's gradient to a norm of at most `clip`.

    Args:
        squares: squared L2 norms of the examples' gradients, over all parameters, float64 (B,).
        clip: C.

    Returns:
        float64 (B,), in [0, 1]; exactly 0 for an example whose norm is not finite.
    """
    most = clip * CLIP_MARGIN
    return (most / squares.sqrt().clamp(min=most)).nan_to_num(nan=0.0)


def add_noise(totals: Sequence[Tensor], scale: float, randomness: Csprng) -> None:
    """Add Gaussian noise of standard deviation `scale` to tensors, in place; the sum is made in float64."""
    sizes = [total.numel() for total in totals]
    for total, noise in zip(totals, gaussian(sum(sizes), scale, randomness).split(sizes), strict=True):
        total.copy_(noise.view_as(total).to(total.device).add_(total))


def gaussian(count: int, scale: float, randomness: Csprng) -> Tensor:
    """`count` Gaussians of standard deviation `scale`, float64 (Box and Muller 1958).

    The same law as `Csprng.normal` in a quarter of the time: torch's logarithm, sine and cosine take whole vectors
    where numpy's take one number after another, and nearly all is done in place, as memory is what takes time.
    """
    half = (count + 1) // 2
    words = randomness.words(2 * half)
    words >>= np.uint64(12)
    words |= np.uint64(0x3FF0_0000_0000_0000)  # read as float64: uniform on the 52-bit grid in [1, 2)
    values = words.view(np.float64)
    np.subtract(2.0, values[:half], out=values[:half])  # in (0, 1]
    both = torch.from_numpy(values)
    radius, angle = both[:half], both[half:]
    radius.log_().mul_(-2.0 * scale**2).sqrt_()
    angle.mul_(2.0 * math.pi)
    cosine = angle.cos()
    angle.sin_().mul_(radius)
    radius.mul_(cosine)
    return both[:count]
