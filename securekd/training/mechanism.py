"""DP-SGD's mechanism (Abadi et al. 2016) but for the gradients: the factor that clips an example, and the noise.

Both ways to per-example gradients go through here: Opacus' hooks (`dp_sgd`) and the closed form (`closed_form`).
"""

import math

import numpy as np
import torch
from torch import Tensor

from securekd.randomness import Csprng

# Clipping stops this far below C, which covers the rounding of float32 products; norms themselves are float64.
CLIP_MARGIN = 1.0 - 1e-6


def factors_of(norms: Tensor, clip: float) -> Tensor:
    """The factor that brings each example's gradient to a norm of at most `clip`.

    Args:
        norms: L2 norms of the examples' gradients, over all parameters, float64 (B, ...).
        clip: C.

    Returns:
        float64, of the same shape, in [0, 1]; exactly 0 for an example whose norm is not finite.
    """
    most = clip * CLIP_MARGIN
    return (most / norms.clamp(min=most)).nan_to_num(nan=0.0)


def add_noise(totals: Tensor, scale: float, randomness: Csprng) -> None:
    """Add Gaussian noise of standard deviation `scale` to a flat tensor, in place.

    Noise and sum are float64, and only the sum is rounded: noise of float32 would leave its own coarse grid in the
    low bits of the result.

    The law is that of `Csprng.normal` (Box and Muller 1958), in a fifth of the time: torch's logarithm, sine and cosine
    take whole vectors where numpy's take one number after another, and nearly all is done in place, since it is memory
    that takes the time.

    Args:
        totals: sums of clipped gradients (P,).
        scale: σ·C.
        randomness: secret stream.
    """
    half, rest = (len(totals) + 1) // 2, len(totals) // 2
    words = randomness.words(2 * half)
    words >>= np.uint64(12)
    words |= np.uint64(0x3FF0_0000_0000_0000)  # read as float64: uniform on the 52-bit grid in [1, 2)
    values = words.view(np.float64)
    np.subtract(2.0, values[:half], out=values[:half])  # in (0, 1], so that its logarithm is finite
    values[half:] *= 2.0 * math.pi
    both = torch.from_numpy(values).to(totals.device)
    radius, angle = both[:half].log_().mul_(-2.0 * scale**2).sqrt_(), both[half:]
    sums = totals.double()
    sums[:half].addcmul_(radius, angle.cos())
    sums[half:].addcmul_(radius[:rest], angle.sin_()[:rest])
    totals.copy_(sums)
