"""From floats to integers and back, without bias.

A value is divided by the step and rounded up with probability equal to its fractional part, down otherwise, so that the
expectation of the integer is the quotient and errors of many clients average out (stochastic rounding; Konečný et al.
2016, section 4, for sums over clients). Clipping is the caller's business, since it changes what the sum means: a value
beyond the range is refused here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import BadParameter, NotFinite, ValueOutOfRange
from securekd_protocols.randomness import RandomBytes

_CHUNK = 1 << 15


@dataclass(frozen=True)
class FixedPoint:
    """A grid on [−clip_range, clip_range].

    Attributes:
        clip_range: Largest absolute value that can be encoded, finite and positive, in the data's own unit.
        step: Distance between neighbouring grid points, in the same unit, at most `clip_range`. Powers of two make the
            division exact.
    """

    clip_range: float
    step: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip_range) and math.isfinite(self.step) and 0 < self.step <= self.clip_range):
            raise BadParameter(
                f"clip range {self.clip_range} with step {self.step}", "choose finite numbers with 0 < step ≤ range"
            )
        if self.clip_range / self.step > 2**52:
            raise BadParameter(f"{self.clip_range / self.step:.3g} steps in the range", "choose a larger step")

    @property
    def magnitude(self) -> int:
        """Largest absolute integer that `encode` can return."""
        return math.ceil(self.clip_range / self.step)

    def encode(self, values: NDArray[np.floating], random_bytes: RandomBytes) -> NDArray[np.int64]:
        """Round floats to integers, stochastically.

        Args:
            values: Float array of any shape, each |value| ≤ `clip_range`.
            random_bytes: Source of the rounding's randomness, asked for 4 bytes a value: `KeystreamRandomness()` where
                the rounding must not be predictable. The probability of rounding up is exact to 2^-32.

        Returns:
            Integers of the same shape, each within ±`magnitude`.

        Raises:
            NotFinite: A value is NaN or infinite.
            ValueOutOfRange: A value lies beyond the range.
        """
        source = np.ascontiguousarray(values)
        self._check(source)
        flat = source.reshape(-1)
        result = np.empty(flat.shape, np.int64)
        for start in range(0, flat.size, _CHUNK):
            quotient = flat[start : start + _CHUNK].astype(np.float64) / self.step
            floor = np.floor(quotient)
            quotient -= floor
            quotient *= 2.0**32
            coins = np.frombuffer(random_bytes(4 * quotient.size), np.dtype("<u4"))
            np.add(floor, coins < quotient, out=result[start : start + _CHUNK], casting="unsafe")
        return result.reshape(source.shape)

    def decode(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Turn integers, or sums of them, back to the data's unit, as float64 of the same shape."""
        return np.asarray(integers, np.float64) * self.step

    def _check(self, values: NDArray[np.floating]) -> None:
        if not np.issubdtype(values.dtype, np.floating):
            raise BadParameter(f"values of type {values.dtype}", "encode floats; integers need no fixed point")
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise NotFinite(f"values between {low} and {high}", "find out where NaN or infinity came from")
        if max(-low, high) > self.clip_range:
            raise ValueOutOfRange(
                f"value {low if -low > high else high} is beyond ±{self.clip_range}", "clip it, or widen the range"
            )
