"""DP-SGD's mechanism (Abadi et al. 2016) but for the gradients: the factor that clips an example, and the noise.

Both ways to per-example gradients go through here: Opacus' hooks (`dp_sgd`) and the closed form (`closed_form`).
"""

import math
from dataclasses import dataclass

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
    return (most / norms.clamp(min=most)).nan_to_num_(nan=0.0)


@dataclass(frozen=True, eq=False)
class Scratch:
    """Memory that noise is made in, so that a step need not ask for it anew.

    Attributes:
        words: uint64 (2·half,), for half of the P values or one more.
        wave: float64 (half,).
        summed: float64 (half,).
    """

    words: np.ndarray
    wave: Tensor
    summed: Tensor

    @classmethod
    def of(cls, count: int) -> "Scratch":
        """For `count` values."""
        half = (count + 1) // 2
        return cls(np.empty(2 * half, "<u8"), *(torch.empty(half, dtype=torch.float64) for _ in range(2)))


def add_noise(totals: Tensor, scale: float, randomness: Csprng, scratch: Scratch | None = None) -> None:
    """Add Gaussian noise of standard deviation `scale` to a flat tensor, in place.

    Noise and sum are float64, and only the sum is rounded: noise of float32 would leave its own coarse grid in the
    low bits of the result.

    The law is that of `Csprng.normal` (Box and Muller 1958), in a quarter of the time: torch's logarithm, sine and
    cosine take whole vectors where numpy's take one number after another, and nearly all is done in place, since it is
    memory that takes the time.

    Args:
        totals: sums of clipped gradients (P,).
        scale: σ·C.
        randomness: secret stream.
        scratch: memory to work in, for P values; None takes fresh memory.
    """
    scratch = Scratch.of(len(totals)) if scratch is None else scratch
    half = len(scratch.wave)
    randomness.fill(scratch.words)
    radius = _from_one_to_two(scratch.words[:half])
    np.subtract(2.0, radius, out=radius)  # in (0, 1], so that its logarithm is finite
    lengths = torch.from_numpy(radius).log_().mul_(-2.0 * scale**2).sqrt_()
    angle = _from_one_to_two(scratch.words[half:])
    angle *= 2.0 * math.pi
    angles = torch.from_numpy(angle)
    for part, wave in ((totals[:half], torch.cos(angles, out=scratch.wave)), (totals[half:], angles.sin_())):
        summed = scratch.summed[: len(part)].copy_(part)
        summed.addcmul_(lengths[: len(part)], wave[: len(part)])
        part.copy_(summed)


def _from_one_to_two(words: np.ndarray) -> np.ndarray:
    """Uniform words (uint64), in place, as float64 on the 52-bit grid in [1, 2): fractions below the exponent of 1."""
    words >>= np.uint64(12)
    words |= np.uint64(0x3FF0_0000_0000_0000)
    return words.view(np.float64)
