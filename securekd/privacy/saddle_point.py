"""δ at ε of composed DP-SGD steps by a contour integral through its saddle point: a reference, not a guarantee.

With the cumulant functions Kᵢ(s) = log E_P exp(s·loss), and K = Σ countᵢ·Kᵢ, for any λ > 0
    δ(ε) = 1/2πi ∫ exp(K(s) − sε) / (s(s + 1)) ds    along Re s = λ
(Alghamdi et al. 2023, "The saddle-point method in differential privacy", theorem 4.3). At the saddle point the
integrand is largest on the real axis and falls off beside it, so that a few thousand terms of the trapezoidal rule give
δ to many digits, however small it is. No bound on the error is proven, hence: a reference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from securekd.privacy.sampled_gaussian import Steps

# The contour ends at so many widths of the integrand, and where a heap of losses can no longer be told from one point.
_WIDTHS = 24.0
_HEAP = 60.0
_ACCURACY = 1e-5
WORK = 4e6
# What lies in tails of e^-120 is left out.
_LOG_TAIL = -120.0
_LARGEST_ORDER = 1e12
_SMALLEST_ORDER = 1e-4
# The trapezoidal rule on a Gaussian law errs by exp(−2(π·8)²) at eight points a deviation.
_POINTS = 8


@dataclass(frozen=True)
class Saddle:
    """A saddle point: where a tilted loss has a mean of ε.

    Attributes:
        order: λ.
        epsilon: K'(λ).
        log_delta: about log δ(ε): the integral's leading term.
    """

    order: float
    epsilon: float
    log_delta: float


@dataclass(frozen=True, eq=False)
class Cumulants:
    """Cumulant function of one pair by quadrature.

    Attributes:
        count: steps.
        log_weights: quadrature weight times P's density (n,), in logarithms.
        losses: (n,).
    """

    count: int
    log_weights: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, steps: Steps, log_tail: float, imaginary: float = 0.0) -> "Cumulants":
        """Without what lies in P's tails of e^log_tail, for orders with imaginary parts up to about `imaginary`."""
        pair = steps.pair
        low, high = pair.ends(log_tail)
        step = (high - low) / cls.points(steps, log_tail, imaginary)
        x = low + step * np.arange(cls.points(steps, log_tail, imaginary) + 1)
        return cls(steps.count, pair.log_density(x) + math.log(step), pair.loss(x))

    @staticmethod
    def points(steps: Steps, log_tail: float, imaginary: float = 0.0) -> int:
        """Into how many parts `of` cuts the line."""
        pair = steps.pair
        low, high = pair.ends(log_tail)
        step = min(pair.noise, 4 * pair.noise**2, 16 * pair.noise**2 / max(imaginary, 1e-9)) / _POINTS
        return math.ceil((high - low) / step)

    def moments(self, order: float) -> np.ndarray:
        """K, K' and K'' of all steps at a real order."""
        exponent = self.log_weights + order * self.losses
        top = exponent.max()
        weights = np.exp(exponent - top)
        total = weights.sum()
        mean = np.dot(weights, self.losses) / total
        variance = np.dot(weights, (self.losses - mean) ** 2) / total
        return self.count * np.array([top + math.log(total), mean, variance])

    def tilted(self, order: float) -> tuple[int, np.ndarray, np.ndarray]:
        """Number of steps, and one step's law in proportion to exp(order·loss): masses, and their losses."""
        exponent = self.log_weights + order * self.losses
        kept = exponent > exponent.max() - 40.0
        masses = np.exp(exponent[kept] - exponent.max())
        return self.count, masses / masses.sum(), self.losses[kept]


def moments(laws: Sequence[Cumulants], order: float) -> np.ndarray:
    """K, K' and K'' of all laws together at a real order."""
    found: np.ndarray = np.sum([law.moments(order) for law in laws], axis=0)
    return found


def saddle_at(laws: Sequence[Cumulants], delta: float) -> Saddle:
    """The saddle point whose ε has about this δ, by the integral's leading term."""

    def at(log_order: float) -> Saddle:
        order = math.exp(log_order)
        value, mean, variance = moments(laws, order)
        spread = math.log(order) + math.log1p(order) + 0.5 * math.log(2 * math.pi * variance + 1 / order**2)
        return Saddle(order, float(mean), float(value - order * mean - spread))

    return at(_crossing(lambda log_order: math.log(delta) - at(log_order).log_delta))


def order_at(laws: Sequence[Cumulants], epsilon: float) -> float:
    """λ at which the integrand is least on the real axis, which is where it is largest along the contour."""

    def slope(log_order: float) -> float:
        order = math.exp(log_order)
        return float(moments(laws, order)[1] - epsilon - 1 / order - 1 / (order + 1))

    return math.exp(_crossing(slope))


def saddle_delta(steps: Sequence[Steps], epsilon: float, work: float = WORK) -> float | None:
    """δ at ε > 0 of all steps together, in one direction; None where it would take too long.

    A law that the example is rarely in has nearly all of its weight near the least loss, where it is as good as
    discrete: the integrand then falls off like 1/u² only. A smooth cut-off at u ≈ U smears δ(ε) by 1/U, which changes
    nothing once the heap stays well below ε.

    Args:
        steps: pairs of one direction, each so many times.
        epsilon: above 0.
        work: largest number of terms, over integrand and quadrature.
    """
    laws = [Cumulants.of(s, _LOG_TAIL) for s in steps]
    order = order_at(laws, epsilon)
    value, _, variance = moments(laws, order)
    heap = sum(s.count * math.log1p(-s.pair.rate) for s in steps if s.pair.rate < 1)
    end = max(_WIDTHS / math.sqrt(variance + 1 / order**2 + 1 / (order + 1) ** 2), _HEAP / (epsilon - heap))
    scale = math.exp(value - order * epsilon) / (order * (order + 1))
    before = None
    while True:
        if sum(Cumulants.points(s, _LOG_TAIL, end) for s in steps) > work / 128:
            return None
        found = _integral([Cumulants.of(s, _LOG_TAIL, end) for s in steps], order, epsilon, end, work)
        if found is None or (before is not None and abs(found - before) <= _ACCURACY * abs(found)):
            return None if found is None else scale * found
        before, end = found, 2 * end


def saddle_epsilon(steps: Sequence[Steps], delta: float, work: float = WORK) -> float | None:
    """ε at δ of all steps together, in one direction; None where it would take too long, or ε is below 1e-6."""
    guess = saddle_at([Cumulants.of(s, _LOG_TAIL) for s in steps], delta).epsilon

    def excess(log_epsilon: float) -> float:
        found = saddle_delta(steps, math.exp(log_epsilon), work)
        if found is None:
            raise _TooLongError
        return math.log(max(found, 1e-300) / delta)

    low = high = math.log(max(guess, 1e-6))
    try:
        while excess(low) < 0:
            low, high = low - 0.1, low
            if low < math.log(1e-6):
                return None
        while excess(high) > 0:
            low, high = high, high + 0.1
        return math.exp(brentq(excess, low, high, xtol=1e-6))
    except _TooLongError:
        return None


class _TooLongError(ArithmeticError):
    """An integral that would take too many terms."""


def _crossing(rising: Callable[[float], float]) -> float:
    """Where a rising function of log λ is 0; the end of the orders that are tried where it is not."""
    low = high = math.log(_SMALLEST_ORDER)
    while rising(high) < 0:
        if high > math.log(_LARGEST_ORDER):
            return high
        low, high = high, high + 1.0
    return low if low == high else float(brentq(rising, low, high, xtol=1e-3))


def _integral(cumulants: Sequence[Cumulants], order: float, epsilon: float, end: float, work: float) -> float | None:
    """1/π ∫₀^end of the integrand over its value at 0, by a trapezoidal rule that is refined until it rests."""
    laws = [c.tilted(order) for c in cumulants]
    before, points = None, 128
    while points * sum(len(masses) for _, masses, _ in laws) <= work:
        u = end * np.arange(points + 1) / points
        exponent = -1j * u * epsilon - np.log1p(1j * u / order) - np.log1p(1j * u / (order + 1)) - 36 * (u / end) ** 8
        for count, masses, losses in laws:
            for start in range(0, len(u), 64):
                waves = np.exp(1j * np.outer(u[start : start + 64], losses))
                exponent[start : start + 64] += count * np.log(waves @ masses)
        terms = np.exp(exponent).real
        found = float(terms.sum() - terms[0] / 2) * end / (points * math.pi)
        if before is not None and abs(found - before) <= _ACCURACY * abs(found):
            return found
        before, points = found, 2 * points
    return None
