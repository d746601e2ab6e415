"""The exact privacy curve of the Gaussian mechanism (Balle and Wang 2018, theorem 8), both ways.

A composition of Gaussian mechanisms is one with μ = √(Σ μᵢ²), μᵢ = Δ/σᵢ (Dong, Roth and Su 2022, corollary 3.3), so
releases over several rounds need no numerical composition.
"""

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr


def gaussian_delta(epsilon: float, mu: float) -> float:
    """δ of the Gaussian mechanism with μ = Δ/σ at ε."""
    upper = log_ndtr(mu / 2 - epsilon / mu)
    lower = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(math.exp(upper) * -math.expm1(min(lower - upper, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest ε ≥ 0 at which the Gaussian mechanism with μ = Δ/σ is (ε, δ)-DP, rounded up."""
    if gaussian_delta(0.0, mu) <= delta:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(2 / delta)) + 1.0  # the zCDP bound, which is never too small
    near = 1e-12 * max(1.0, high)
    return float(brentq(lambda epsilon: gaussian_delta(epsilon, mu) - delta, 0.0, high, xtol=near)) + 4 * near


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest μ = Δ/σ at which the Gaussian mechanism is (ε, δ)-DP, rounded down."""
    low, high = 1e-9, 1.0
    while gaussian_delta(epsilon, high) < delta:
        low, high = high, 2 * high
    return float(brentq(lambda mu: gaussian_delta(epsilon, mu) - delta, low, high, xtol=1e-12)) * (1 - 1e-9)
