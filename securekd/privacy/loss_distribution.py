"""An upper bound on the ε of composed DP-SGD steps: privacy losses on a grid, composed by one Fourier transform.

Three things make it tight where a plain transform is not, in δ as small as 1e-15 and in millions of steps:

- A step's loss goes to the two grid points beside it in the shares that keep its probability under both laws
  (Doroshenko et al. 2022, "Connect the dots", lemma 4.1). The gridded pair dominates the true one, and differs from it
  by a variance of at most (grid/2)² a step.
- Probabilities are tilted by exp(λ·loss) before the transform, with λ from the saddle point: what decides δ then has
  about the mean, and rounding errors are relative to δ, not to 1.
- The transform is periodic. A loss that leaves the window comes back in it, where it only adds; those beyond the
  window's upper end, which should have counted, are added by Chernoff's bound.

What rounding may do is bounded, and added to δ: the result is an upper bound in floating point, too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp

from securekd.privacy.saddle_point import Cumulants, Saddle, moments, saddle_at
from securekd.privacy.sampled_gaussian import Steps

# The grid adds at most about this share to ε, unless it would have more than so many points.
TOLERANCE = 1e-4
FEWEST_POINTS = 1 << 12
MOST_POINTS = 1 << 20
# Share of δ that goes to losses which are cut off, on either side of anything.
_CUT = 1e-6
# Share of the tilted composition that may lie outside of the window.
_OUTSIDE = 1e-9
# Losses that are rare after tilting, too, are on a grid so many times as wide.
_SPARSE = 64
# A quadrature of four nodes on a panel of a 32nd of the law's own scale errs by less than 1e-13 of the panel.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
# Below these, floating point has no room for the tails.
_LEAST_DELTA = 1e-100
LEAST_NOISE = 0.03
_UNIT = 2.0**-53
# Relative error of one gridded probability: quadrature, logarithms and exponentials of arguments up to some hundreds.
# Against fifty digits it was 4e-12 at most (replace-one, noise 0.03, far in the tails).
_ERROR_OF_MASS = 2e-11
# How far the root that is found may lie from ε.
_ROOT = 1e-12


@dataclass(frozen=True, eq=False)
class GriddedStep:
    """One step's privacy loss on a grid, tilted.

    Attributes:
        count: steps like it.
        indices: the losses, in grid steps, ascending (n,).
        log_masses: logarithms of their probabilities under P (n,).
        lost: probability of losses beyond the grid, which count as infinite.
    """

    count: int
    indices: np.ndarray
    log_masses: np.ndarray
    lost: float

    def cumulant(self, order: float, grid: float) -> float:
        """log E exp(order·loss) of one step."""
        return float(logsumexp(self.log_masses + order * grid * self.indices))

    def tilted(self, order: float, grid: float) -> np.ndarray:
        """Probabilities in proportion to exp(order·loss), with a sum of 1."""
        return np.exp(self.log_masses + order * grid * self.indices - self.cumulant(order, grid))


def loss_epsilon(steps: Sequence[Steps], delta: float, tolerance: float = TOLERANCE) -> float:
    """An ε at which all steps together, in one direction, are (ε, δ)-DP; infinite where none is found.

    Args:
        steps: pairs of one direction, each so many times.
        delta: in (0, 1).
        tolerance: share of ε that the grid may add. A finer grid never raises ε: where it has more rounding to
            cover than it saves, the usual one's is given.
    """
    if delta < _LEAST_DELTA or min(s.pair.noise for s in steps) < LEAST_NOISE:
        return math.inf
    found = _on_grid(steps, delta, tolerance)
    return found if tolerance >= TOLERANCE else min(found, _on_grid(steps, delta, TOLERANCE))


def _on_grid(steps: Sequence[Steps], delta: float, tolerance: float) -> float:
    log_tail = math.log(_CUT * delta / sum(s.count for s in steps))
    laws = [Cumulants.of(s, log_tail) for s in steps]
    saddle = saddle_at(laws, delta)
    window = _window(laws, saddle)
    ranges = [_range(s, law, saddle.order, log_tail) for s, law in zip(steps, laws, strict=True)]
    spacing = _spacing(ranges, saddle, window, sum(s.count for s in steps), tolerance)
    stepped = [_gridded(s, one, spacing, log_tail) for s, one in zip(steps, ranges, strict=True)]
    return _epsilon(stepped, spacing, window, saddle, delta)


@dataclass(frozen=True)
class _Window:
    """Between which losses a tilted composition lies, but for a share that does not matter.

    Attributes:
        low: loss.
        high: loss.
        more: order, added to λ, at which Chernoff's bound shows the upper end.
    """

    low: float
    high: float
    more: float


def _window(laws: Sequence[Cumulants], saddle: Saddle) -> _Window:
    value, _, variance = moments(laws, saddle.order)
    bits = -math.log(_OUTSIDE)
    tilts = 2.0 ** np.arange(-3, 10) / math.sqrt(variance + 1e-6 / saddle.order**2)
    highs = np.array([(moments(laws, saddle.order + t)[0] - value + bits) / t for t in tilts])
    lows = np.array([(value - moments(laws, saddle.order - t)[0] - bits) / t for t in tilts])
    best = int(np.argmin(highs))
    return _Window(float(lows.max()), float(highs[best]), float(tilts[best]))


@dataclass(frozen=True)
class _Range:
    """Which losses of one step are on the grid.

    Attributes:
        low: x below which losses are rounded up to the loss there.
        high: x above which they count as infinite.
        lowest: loss at `low`.
        coarse: loss above which few enough lie for a grid `_SPARSE` times as wide.
        highest: loss at `high`.
    """

    low: float
    high: float
    lowest: float
    coarse: float
    highest: float


def _range(steps: Steps, law: Cumulants, order: float, log_tail: float) -> _Range:
    pair = steps.pair
    low, high = pair.ends(log_tail)
    low = max(low, _negligible_below(steps, law, order))
    lowest, highest = (float(loss) for loss in pair.loss(np.array([low, high])))
    return _Range(low, high, lowest, max(lowest, _rare_above(law, order)), highest)


def _spacing(ranges: Sequence[_Range], saddle: Saddle, window: _Window, count: int, tolerance: float) -> float:
    """The grid's spacing: a variance of spacing²/4 a step adds (λ + 1)/2 of it to ε.

    Both end points' shares keep E exp(−loss), so that log E exp(λ·loss) grows by about λ(λ + 1)/2 of the added
    variance, and λ·ε by as much. Few steps get a finer grid, since it costs nothing.
    """
    width = window.high - window.low
    fine = math.sqrt(4 * tolerance * max(saddle.epsilon, 1e-9) / ((saddle.order + 1) * count))
    widest = max(width, *(max(r.coarse - r.lowest, (r.highest - r.lowest) / _SPARSE) for r in ranges))
    return max(min(fine, width / FEWEST_POINTS), widest / (MOST_POINTS - 2))


def _gridded(steps: Steps, reach: _Range, grid: float, log_tail: float) -> GriddedStep:
    pair, low, high = steps.pair, reach.low, reach.high
    panel = min(pair.noise / 32, pair.noise**2 / 8)
    indices = _indices(reach.lowest / grid, reach.highest / grid, reach.coarse / grid)
    edges = pair.place(grid * indices).clip(low, high)
    edges = np.sort(np.concatenate([edges, np.linspace(low, high, math.ceil((high - low) / panel) + 1)]))
    half = np.diff(edges) / 2
    middle = edges[:-1] + half
    middle, half = middle[half > 0], half[half > 0]
    cell = (np.searchsorted(indices, pair.loss(middle) / grid, side="right") - 1).clip(0, len(indices) - 2)
    lower, width = grid * indices[cell], grid * np.diff(indices)[cell]
    masses = np.zeros(len(indices))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        x = middle + half * node
        mass = weight * half * np.exp(pair.log_density(x))
        upper = (np.expm1(lower - pair.loss(x)) / np.expm1(-width)).clip(0.0, 1.0)
        masses[1:] += np.bincount(cell, mass * upper, len(masses) - 1)
        masses[:-1] += np.bincount(cell, mass * (1 - upper), len(masses) - 1)
    masses[1] += math.exp(float(log_ndtr(low / pair.noise)))  # losses below the grid, rounded up to it
    with np.errstate(divide="ignore"):
        return GriddedStep(steps.count, indices, np.log(masses), math.exp(log_tail))


def _indices(lowest: float, highest: float, coarse: float) -> np.ndarray:
    """Grid points from below the lowest loss to above the highest, each `_SPARSE`-th only beyond `coarse`."""
    first, middle = math.floor(lowest), math.ceil(coarse)
    beyond = max(1, math.ceil((highest - middle) / _SPARSE))
    return np.concatenate([np.arange(first, middle), middle + _SPARSE * np.arange(beyond + 1)])


def _negligible_below(steps: Steps, law: Cumulants, order: float) -> float:
    """An x below which losses can be rounded up to the loss there: tilted, they stay negligible in all steps."""
    value = law.moments(order)[0] / steps.count
    rounded = np.logaddexp.accumulate(law.log_weights) + order * law.losses - value
    negligible = np.flatnonzero(rounded <= math.log(_OUTSIDE / steps.count))
    return min(0.0, float(steps.pair.place(law.losses[negligible[-1:]])[0])) if len(negligible) else -math.inf


def _rare_above(law: Cumulants, order: float) -> float:
    """A loss above which a grid `_SPARSE` times as wide adds no more variance, tilted, than the grid adds below."""
    _, masses, losses = law.tilted(order)
    beyond = np.cumsum(masses[::-1])[::-1]
    return float(losses[min(int((beyond > _SPARSE**-2.0).sum()), len(losses) - 1)])


def _epsilon(stepped: Sequence[GriddedStep], grid: float, window: _Window, saddle: Saddle, delta: float) -> float:
    order, count = saddle.order, sum(s.count for s in stepped)
    points = max((window.high - window.low) / grid + 1, FEWEST_POINTS)
    size = 1 << math.ceil(math.log2(points))  # a power of two: the transform keeps tables of its last sizes
    start = math.floor(window.low / grid)
    centre, composed, error = _composed(stepped, order, grid, size)
    masses = np.maximum(np.roll(composed, centre - start), 0.0)
    losses = grid * (start + np.arange(size))
    log_scale = sum(s.count * s.cumulant(order, grid) for s in stepped) - order * saddle.epsilon
    if log_scale > 600:  # an order that fits nothing
        return math.inf
    # All masses are positive: where one step's are off by a share, the composed ones are by as many shares as steps.
    scale = math.exp(log_scale + count * _ERROR_OF_MASS)
    factors = np.exp(np.minimum(-order * (losses - saddle.epsilon), 300.0))
    end = grid * (start + size)
    beyond = sum(s.count * s.cumulant(order + window.more, grid) for s in stepped) - (order + window.more) * end
    lost = sum(s.count * s.lost for s in stepped) + math.exp(min(beyond, 0.0))

    def excess(epsilon: float) -> float:
        above = slice(max(0, math.floor(epsilon / grid) - start), None)
        shares = np.maximum(-np.expm1(epsilon - losses[above]), 0.0)
        # Rounding can have taken as much as the last term (Cauchy and Schwarz).
        taken = error * float(np.linalg.norm(factors[above] * shares))
        return scale * (float(np.dot(masses[above], factors[above] * shares)) + taken) + lost - delta

    least, most = max(0.0, float(losses[0])), float(losses[-1])
    if excess(most) > 0:
        return math.inf
    if excess(least) <= 0:
        return least
    return float(brentq(excess, least, most, xtol=_ROOT, rtol=1e-7)) * (1 + 1e-6) + 4 * _ROOT


def _composed(stepped: Sequence[GriddedStep], order: float, grid: float, size: int) -> tuple[int, np.ndarray, float]:
    """The tilted composition, modulo `size`.

    Returns:
        The index that stands first, the probabilities (size,), and a bound on the L2 norm of their errors.
    """
    error = 4 * _UNIT * math.log2(size)  # of each Fourier coefficient of one step, whose masses add up to 1
    centre, log_bound, relative = 0, np.zeros(size // 2 + 1), np.zeros(size // 2 + 1)
    spectrum = np.ones(size // 2 + 1, complex)
    for s in stepped:
        tilted = s.tilted(order, grid)
        middle = round(float(np.dot(tilted, s.indices)))  # near the mean, so that phases stay small
        centre += s.count * middle
        single = fft.rfft(np.bincount((s.indices - middle) % size, tilted, size))
        spectrum *= single**s.count
        larger = np.abs(single) + error
        log_bound += s.count * np.log(larger)
        relative += s.count / larger
    composed = fft.irfft(spectrum, size)
    # |aⁿ − bⁿ| ≤ n·|a − b|·max(|a|, |b|)ⁿ⁻¹ for each coefficient; a transform keeps the L2 norm but for √size, and errs
    # by a share of it (Higham 2002, theorem 24.2).
    coefficients = error * np.exp(log_bound) * (relative + 1)
    return centre, composed, float(math.sqrt(2 / size) * np.linalg.norm(coefficients))
