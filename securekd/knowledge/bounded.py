"""What any kind of knowledge has to say of itself before a client lets go of it, bounded and without noise yet.

Weighted means append one more entry, the weight itself, so that neither the weighted sum nor the sum of weights is seen
for one client.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from securekd.privacy.mechanisms import Bounds

# Clipping stops this far below the bound, so that a float64 norm does not end above it by rounding.
HAIR = 1 - 1e-12


class Knowledge(Protocol):
    """Shape and bounds of what every client lets go of in a round: public, and the same for all."""

    @property
    def rows(self) -> int:
        """Transfer rows that it is about; 0 where it is not about any."""

    @property
    def parts(self) -> int:
        """Parts of it that are clipped, and checked for what is not finite, one by one."""

    @property
    def size(self) -> int:
        """Entries of the mean, which clients get back."""

    @property
    def length(self) -> int:
        """Entries of a client's vector: those of the mean, and one for the weight where weights are used."""

    @property
    def bounds(self) -> Bounds:
        """What bounds a client's vector; its length counts from a client that sends zeros."""

    @property
    def unit(self) -> int:
        """How many of the vector's units make one of the mean's."""

    @property
    def weight_cap(self) -> int | None:
        """Examples at which a client's weight is capped to 1; None for equal weights."""

    @property
    def weight_bound(self) -> float:
        """What a weight of 1 is in the vector."""

    @property
    def unclipped(self) -> "Knowledge":
        """The same with nothing that bounds it, and no weight: what a client has before its clip."""

    def mean(self, total: np.ndarray, survivors: float) -> np.ndarray:
        """The mean of so many survivors, from the (noisy) sum (length,) of their vectors."""


@dataclass(frozen=True)
class Bounded:
    """What one client lets go of.

    Attributes:
        vector: float64 (length,), within the bounds of its shape.
        clipped: parts that the clip made shorter.
        zeroed: parts with a NaN or infinite value, which became zeros.
    """

    vector: np.ndarray
    clipped: int
    zeroed: int


def weighted(vector: np.ndarray, bound: float, examples: int, cap: int) -> np.ndarray:
    """A client's vector times its weight, and the weight itself, times `bound`, as one more entry.

    Args:
        vector: bounded (d,).
        bound: what a weight of 1 adds to the length.
        examples: the client's private examples.
        cap: examples at which a weight is 1.
    """
    weight = min(examples, cap) / cap
    return np.append(weight * vector, weight * bound * HAIR)


def weighted_mean(total: np.ndarray, bound: float, cap: int) -> np.ndarray:
    """The weighted mean (d,) from the (noisy) sum (d + 1,) of `weighted` vectors."""
    weight = max(total[-1] / bound, 1.0 / cap)  # the noise may have pushed it below zero
    return np.asarray(total[:-1] / weight)
