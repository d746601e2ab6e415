"""Rényi divergences of release events, their amplification by client sampling, and the way from them to ε.

Orders are integers (and for Gaussian and discrete Gaussian laws some between them). A divergence is infinite at an
order at which its bound is not proven.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import gammaln, logsumexp

from securekd.privacy.events import DiscreteGaussianEvent, GaussianEvent, ReleaseEvent, SkellamEvent

INTEGERS = np.unique(np.concatenate([np.arange(2, 129), np.geomspace(129, 1e5, 60).astype(int)])).astype(float)
ORDERS = np.unique(np.concatenate([np.linspace(1.05, 12, 220), INTEGERS]))
# Amplification sums over all orders below; beyond this one it is not worth its time.
_LARGEST_SAMPLED_ORDER = 256


def epsilon_of(events: Mapping[ReleaseEvent, int], delta: float) -> float:
    """ε at δ of release events together, each so many times (Canonne, Kamath and Steinke 2020, proposition 12).

    Divergences of independent releases add up (Mironov 2017, proposition 1), chosen adaptively or not.
    """
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    total = sum((times * divergence(event) for event, times in events.items()), start=np.zeros_like(ORDERS))
    proven = np.isfinite(total)
    return float(compute_epsilon(ORDERS[proven], total[proven], delta)[0]) if proven.any() else float("inf")


def divergence(event: ReleaseEvent) -> np.ndarray:
    """Rényi divergence of one release at each of `ORDERS`."""
    if event.sampling_rate < 1:
        return _sampled(event)
    return _unsampled(event, ORDERS)


def _unsampled(event: ReleaseEvent, orders: np.ndarray) -> np.ndarray:
    if isinstance(event, GaussianEvent):
        return orders / (2 * event.noise_multiplier**2)
    if isinstance(event, SkellamEvent):
        return _skellam(event, orders)
    return _discrete_gaussian(event, orders)


def _skellam(event: SkellamEvent, orders: np.ndarray) -> np.ndarray:
    """Agarwal, Kairouz and Liu 2021, theorem 3.5 (corollary 3.6 for vectors): integer orders, integer vectors."""
    variance = event.shares * event.sigma**2
    square = event.l2**2
    quadratic = ((2 * orders - 1) * square + 6 * event.l1) / (4 * variance**2)
    bound = orders * square / (2 * variance) + np.minimum(quadratic, 3 * event.l1 / (2 * variance))
    return np.where(orders == np.floor(orders), bound, np.inf)


def _discrete_gaussian(event: DiscreteGaussianEvent, orders: np.ndarray) -> np.ndarray:
    """Kairouz, Liu and Steinke 2021, proposition 14: with one share it is Canonne, Kamath and Steinke's theorem 14."""
    scale = event.sigma * np.sqrt(event.shares)
    k = np.arange(1, event.shares)
    tau = 10 * float(np.exp(-2 * (np.pi * event.sigma) ** 2 * k / (k + 1)).sum())
    if event.shares > 1 and event.sigma**2 < 0.5:  # what the proposition asks for
        return np.full_like(orders, np.inf)
    l2, l1, d = event.l2 / scale, event.l1 / scale, event.dimension
    bounds = (
        orders / 2 * l2**2 + tau * d,
        orders / 2 * (l2**2 + 2 * l1 * tau + tau**2 * d),
        orders / 2 * (l2 + np.sqrt(d) * tau) ** 2,
    )
    least: np.ndarray = np.minimum.reduce(bounds)
    return least


def _sampled(event: ReleaseEvent) -> np.ndarray:
    """Poisson sampling of clients amplifies: Zhu and Wang 2019, theorem 5, at integer orders.

    A client that is not sampled sends zeros with its noise, and so does its neighbour under zero-out, however the coin
    falls: the two worlds differ as in add/remove.
    """
    q = event.sampling_rate
    whole = np.arange(2, _LARGEST_SAMPLED_ORDER + 1)
    losses = _unsampled(event, whole.astype(float))
    found = dict(zip(whole.tolist(), (_amplified(a, q, losses) for a in whole.tolist()), strict=True))
    plain = _unsampled(event, ORDERS)
    return np.array([min(found.get(a, np.inf), p) for a, p in zip(ORDERS.tolist(), plain.tolist(), strict=True)])


def _amplified(order: int, q: float, losses: np.ndarray) -> float:
    chosen = np.arange(2, order + 1)
    log_terms = (
        gammaln(order + 1)
        - gammaln(chosen + 1)
        - gammaln(order - chosen + 1)
        + (order - chosen) * np.log1p(-q)
        + chosen * np.log(q)
        + (chosen - 1) * losses[: order - 1]
        + np.where(chosen > 2, np.log(3.0), 0.0)
    )
    first = (order - 1) * np.log1p(-q) + np.log(order * q - q + 1)
    # A logarithm near 0 is rounded to 1e-15 or so: what that takes must not make a small divergence none.
    return (max(0.0, float(logsumexp(np.append(log_terms, first)))) + 1e-14) / (order - 1)
