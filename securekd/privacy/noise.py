"""Integer noise: the discrete Gaussian and the Skellam law, drawn from a CSPRNG through one table.

A draw inverts the law's distribution function: with thresholds T_j = 2^256·P(X ≤ first + j) and a uniform 256-bit
integer U, X is `first` plus the number of thresholds that are at most U. Tables are computed in integers, so no
floating-point rounding shapes what leaves a client (Mironov 2012). What is drawn differs from the law by at most
`total_variation`: thresholds are rounded to 2^-256, and weights below 2^-270 of the largest are cut. Accounting charges
that to δ.

Nearly always 64 bits of U decide. Only where they equal a threshold's own first 64 bits are the other 192 drawn.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np

from securekd.errors import BudgetError
from securekd.randomness import Csprng

Law = Literal["discrete_gaussian", "skellam"]

UNIFORM_BITS = 256
_TAIL_BITS = 270
_WORK_BITS = 384
_LOW_BITS = UNIFORM_BITS - 64
_CHUNK = 1 << 16
# Tables grow with σ; this one has two million entries.
LARGEST_SIGMA = 50_000.0
SMALLEST_SIGMA = 0.01


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The distribution function of a symmetric law on the integers, ready to be inverted.

    Attributes:
        reach: no draw is larger than this in absolute value.
        high: uint64 (2·reach,), the thresholds' first 64 bits, ascending.
        thresholds: the thresholds themselves, integers below 2^256.
    """

    reach: int
    high: np.ndarray
    thresholds: tuple[int, ...]

    def draw(self, count: int, randomness: Csprng) -> np.ndarray:
        """`count` independent draws, int64."""
        if not self.reach:  # a law so narrow that all but 0 is cut
            return np.zeros(count, np.int64)
        drawn = np.empty(count, np.int64)
        for start in range(0, count, _CHUNK):  # words and places of a chunk stay in the cache
            words = randomness.words(min(_CHUNK, count - start))
            places = np.searchsorted(self.high, words, side="right")
            drawn[start : start + len(words)] = places
            close = np.flatnonzero(self.high[np.maximum(places - 1, 0)] == words)
            for i in close:  # about one draw in 2^45
                low = int.from_bytes(randomness.read(_LOW_BITS // 8), "little")
                drawn[start + i] = bisect_right(self.thresholds, (int(words[i]) << _LOW_BITS) | low)
        return drawn - self.reach


def total_variation(sigma: float) -> float:
    """Bound on the total variation distance between one draw and its law, whichever of the two it is.

    A table has at most 40σ + 220 thresholds, each rounded by less than 2^-256 (weights are computed to 2^-380 or
    better), and the weights cut behind its ends fall faster than by half.
    """
    return (40.0 * sigma + 220.0) * 2.0 ** (1 - UNIFORM_BITS)


@lru_cache(maxsize=8)
def noise_table(law: Law, sigma: float) -> NoiseTable:
    """The table of a law with variance σ² (discrete Gaussian: with that parameter), σ in units of one integer.

    Raises:
        BudgetError: if σ is outside of what a table holds.
    """
    if not SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA:
        raise BudgetError(
            f"integer noise of {sigma:.3g} steps is outside {SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g}; "
            "change release.step so that the noise is some tens of steps"
        )
    half = WEIGHTS[law](Fraction(sigma) ** 2)
    total = 2 * sum(half) - half[0]
    thresholds, summed = [], 0
    for weight in (*reversed(half), *half[1:]):
        summed += weight
        thresholds.append((summed << UNIFORM_BITS) // total)
    thresholds.pop()  # the last is 2^256 itself, which no U reaches
    high = np.array([t >> _LOW_BITS for t in thresholds], np.uint64)
    return NoiseTable(len(half) - 1, high, tuple(thresholds))


def discrete_gaussian_weights(variance: Fraction) -> list[int]:
    """Weights of 0, 1, 2, …: 2^384·exp(−k²/2σ²) (Canonne, Kamath and Steinke 2020, definition 1), until they vanish."""
    base = _exp_of_negative(1 / (2 * variance))  # w(k+1) = w(k)·base^(2k+1)
    square, ratio, weight = base * base >> _WORK_BITS, base, 1 << _WORK_BITS
    weights = []
    while weight >> (_WORK_BITS - _TAIL_BITS):
        weights.append(weight)
        weight = weight * ratio >> _WORK_BITS
        ratio = ratio * square >> _WORK_BITS
    return weights


def skellam_weights(variance: Fraction) -> list[int]:
    """Weights of 0, 1, 2, … proportional to the Bessel functions I_k(σ²): the difference of two Poisson(σ²/2) draws.

    Downward recurrence I_{k−1} = I_{k+1} + (2k/σ²)·I_k (Miller; Abramowitz and Stegun, 9.6.26 and section 9.12), all of
    whose terms are positive, from an index where the weight has vanished.
    """
    first = _skellam_reach(float(variance))
    numerator, denominator = variance.numerator, variance.denominator
    later, weight = 0, 1 << _WORK_BITS
    weights = [weight]
    for k in range(first, 0, -1):
        later, weight = weight, later + 2 * k * denominator * weight // numerator
        weights.append(weight)
    weights.reverse()
    cut = weights[0] >> _TAIL_BITS
    return [w for w in weights if w > cut]


WEIGHTS: dict[Law, Callable[[Fraction], list[int]]] = {
    "discrete_gaussian": discrete_gaussian_weights,
    "skellam": skellam_weights,
}


def _skellam_reach(variance: float) -> int:
    """An index beyond which the law has less than 2^-300 of its weight at zero: Chernoff, with t solved for."""
    bits = 300 * math.log(2)
    k = max(8.0, math.sqrt(2 * bits * variance))
    while k * math.asinh(k / variance) - math.sqrt(k * k + variance * variance) + variance < bits:
        k *= 1.05
    return math.ceil(k)


def _exp_of_negative(x: Fraction) -> int:
    """2^384·exp(−x) for x > 0, rounded, by halving the argument and its Taylor series."""
    halvings = max(0, math.ceil(math.log2(float(x))) + 8) if x > Fraction(1, 256) else 0
    guard = _WORK_BITS + 64 + halvings
    small = (x.numerator << guard) // (x.denominator << halvings)
    term = value = 1 << guard
    n = 0
    while term:
        n += 1
        term = -(abs(term) * small >> guard) // n if term > 0 else (abs(term) * small >> guard) // n
        value += term
    for _ in range(halvings):
        value = value * value >> guard
    return value >> (guard - _WORK_BITS)
