"""What ε is, written down a second time from the papers: nothing here may import securekd or dp-accounting.

Beside the standard library only numpy and scipy are used, so that a mistake in the package's accountant is not repeated
by its check.
"""

import math
from functools import cache

import numpy as np
from scipy import signal
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

# ---- Examples: the Poisson-subsampled Gaussian by its privacy loss distribution, add/remove ----

HALF_SPAN = 48.0  # losses of a whole composition; what lies beyond counts as lost, or as none, in the two bounds


@cache
def subsampled_gaussian_bracket(runs: tuple[tuple[float, float, int], ...], delta: float) -> tuple[float, float]:
    """Lower and upper bound on ε at δ of steps (rate, noise multiplier, number), composed; the larger direction."""
    directions = [
        [_epsilon(_composed(runs, removal=removal, up=up), delta, up) for up in (False, True)]
        for removal in (True, False)
    ]
    return max(low for low, _ in directions), max(high for _, high in directions)


def _composed(
    runs: tuple[tuple[float, float, int], ...], *, removal: bool, up: bool, points: int = 1 << 21
) -> tuple[np.ndarray, np.ndarray]:
    """Losses and their probabilities after all steps: each step's losses are rounded to a grid, all up or all down."""
    step = 2 * HALF_SPAN / points
    spectrum: np.ndarray | float = 1.0
    for rate, noise, number in runs:
        single = _one_step(rate, noise, step, points, removal=removal, up=up)
        spectrum = spectrum * np.fft.rfft(np.fft.ifftshift(single)) ** number
    masses = np.fft.fftshift(np.fft.irfft(spectrum, points))
    return (np.arange(points) - points // 2) * step, np.maximum(masses, 0.0)


def _one_step(rate: float, noise: float, step: float, points: int, *, removal: bool, up: bool) -> np.ndarray:
    """The law of one step's loss on the grid.

    With P = (1 − q)N(0, σ²) + qN(1, σ²) and Q = N(0, σ²), log P/Q at x is f(x) = log(1 − q + q·exp((2x − 1)/2σ²)),
    which grows with x. On removal the loss is f(x) under P, on addition −f(x) under Q.
    """
    edges = (np.arange(points + 1) - points // 2 - (1 if up else 0)) * step  # cell i is (edges[i], edges[i + 1]]
    losses = edges if removal else -edges
    inside = np.exp(losses) - (1.0 - rate)
    x = np.full(points + 1, -np.inf)
    x[inside > 0] = noise**2 * np.log(inside[inside > 0] / rate) + 0.5
    mixture = (1.0 - rate) * norm.cdf(x / noise) + rate * norm.cdf((x - 1.0) / noise)
    return np.diff(mixture if removal else norm.sf(x / noise))


def _epsilon(composed: tuple[np.ndarray, np.ndarray], delta: float, up: bool) -> float:
    losses, masses = composed
    lost = max(0.0, 1.0 - float(masses.sum())) if up else 0.0
    losses, masses = losses[losses > 0], masses[losses > 0]
    # Σ over losses l > ε of (1 − e^(ε − l))·mass, from two sums over tails.
    tail, damped = (np.append(np.cumsum(v[::-1])[::-1], 0.0) for v in (masses, masses * np.exp(-losses)))

    def excess(epsilon: float) -> float:
        i = np.searchsorted(losses, epsilon, side="right")
        return float(tail[i] - math.exp(epsilon) * damped[i]) + lost - delta

    return float(brentq(excess, 0.0, HALF_SPAN / 2)) if excess(0.0) > 0 else 0.0


# ---- Clients: Rényi divergences of integer noise, and their conversion ----


def skellam_divergence(order: int, l2: float, l1: float, variance: float) -> float:
    """Agarwal, Kairouz and Liu 2021, theorem 3.5: the sum's noise has this variance; integer orders above 1."""
    first = order * l2**2 / (2 * variance)
    return first + min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))


def discrete_gaussian_divergence(
    order: float, l2: float, l1: float, sigma: float, shares: int, dimension: int
) -> float:
    """Kairouz, Liu and Steinke 2021, proposition 14: a sum of `shares` discrete Gaussians of parameter σ."""
    tau = 10 * sum(math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, shares))
    total = shares * sigma**2
    return min(
        order * l2**2 / (2 * total) + tau * dimension,
        order / 2 * (l2**2 / total + 2 * l1 / math.sqrt(total) * tau + tau**2 * dimension),
        order / 2 * (l2 / math.sqrt(total) + tau * math.sqrt(dimension)) ** 2,
    )


def renyi_to_epsilon(order: float, divergence: float, delta: float) -> float:
    """Canonne, Kamath and Steinke 2020, proposition 12."""
    return divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def client_epsilon(events: list[dict[str, object]], delta: float) -> float:
    """ε of one client's releases in one view, from their entries' events as JSON has them."""
    kinds = {e["kind"] for e in events}
    delta *= 1 - 1e-6  # the millionth is set aside for the sampler's distance from its law
    if kinds == {"skellam"}:
        return min(
            renyi_to_epsilon(
                a, sum(skellam_divergence(a, e["l2"], e["l1"], e["shares"] * e["sigma"] ** 2) for e in events), delta
            )
            for a in range(2, 200)
        )
    assert kinds == {"discrete_gaussian"}

    def at(order: float) -> float:
        total = sum(
            discrete_gaussian_divergence(order, e["l2"], e["l1"], e["sigma"], e["shares"], e["dimension"])
            for e in events
        )
        return renyi_to_epsilon(order, total, delta)

    return float(minimize_scalar(at, bounds=(1.01, 200.0), method="bounded", options={"xatol": 1e-6}).fun)


# ---- What the events of a run must say, from its configuration ----


def smallest_threshold(clients: int, colluders: int) -> int:
    """The smallest t ≥ 3 at which two groups with all colluders in both cannot each reach t: 2t > n + c."""
    return next(t for t in range(3, clients + 1) if 2 * t > clients + colluders)


def weighted_release(rows: int, classes: int, clip: float, step: float) -> tuple[int, float, float]:
    """Dimension, L2 and L1 sensitivity in steps of rows clipped to `clip`, with a weight's entry, after rounding.

    Kairouz, Liu and Steinke 2021, equation 7, with β = exp(−1/2).
    """
    d = rows * classes + 1
    norm2 = math.sqrt(rows * clip**2 + clip**2) / step
    norm1 = (rows * clip * math.sqrt(classes) + clip) / step
    likely = norm2**2 + d / 4 + math.sqrt(2 * math.log(1 / math.exp(-0.5))) * (norm2 + math.sqrt(d) / 2)
    l2 = min(math.sqrt(likely), norm2 + math.sqrt(d))
    return d, l2, min(norm1 + d, l2 * math.sqrt(d), l2**2)


# ---- Small cases by direct summation ----


def discrete_gaussian_pmf(sigma: float, shares: int, reach: int) -> np.ndarray:
    """Exact law on −reach…reach of a sum of `shares` discrete Gaussians (Canonne et al. 2020, definition 1)."""
    k = np.arange(-reach, reach + 1)
    one = np.exp(-(k**2) / (2 * sigma**2))
    one /= one.sum()
    pmf = one
    for _ in range(shares - 1):
        pmf = signal.convolve(pmf, one, mode="same", method="direct")
    return pmf


def hockey_stick(p: np.ndarray, q: np.ndarray, epsilon: float) -> float:
    """Σ max(0, p − e^ε q)."""
    return float(np.maximum(p - math.exp(epsilon) * q, 0.0).sum())


def shifted(pmf: np.ndarray, shift: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Laws of noise plus an integer vector, and of noise alone, on one grid in len(shift) dimensions."""
    moved, still = np.ones(()), np.ones(())
    for s in shift:
        reach = abs(s)
        padded = np.pad(pmf, reach)
        moved, still = np.multiply.outer(moved, np.roll(padded, s)), np.multiply.outer(still, padded)
    return moved, still


def exact_delta(pmf: np.ndarray, shift: tuple[int, ...], epsilon: float, rate: float = 1.0) -> float:
    """δ at ε of the vector, sent with probability `rate`, against none: the larger of the two directions."""
    moved, still = shifted(pmf, shift)
    mixed = (1 - rate) * still + rate * moved
    return max(hockey_stick(mixed, still, epsilon), hockey_stick(still, mixed, epsilon))


def exact_epsilon(pmf: np.ndarray, shift: tuple[int, ...], delta: float, rate: float = 1.0) -> float:
    """The smallest ε at which `exact_delta` is δ."""
    if exact_delta(pmf, shift, 0.0, rate) <= delta:
        return 0.0
    return float(brentq(lambda e: exact_delta(pmf, shift, e, rate) - delta, 0.0, 60.0, xtol=1e-9))


def integer_vectors(dimension: int, l2: float, l1: float) -> list[tuple[int, ...]]:
    """All vectors of non-negative integers, in descending order, within both norms: the laws are symmetric."""
    side = range(math.floor(l2) + 1)
    grid = np.array(np.meshgrid(*[side] * dimension)).reshape(dimension, -1).T
    within = (np.linalg.norm(grid, axis=1) <= l2 + 1e-9) & (grid.sum(1) <= l1 + 1e-9) & (grid.sum(1) > 0)
    return sorted({tuple(sorted(map(int, v), reverse=True)) for v in grid[within]})
