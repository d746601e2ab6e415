"""The Gaussian trade-off: its TPR, its ε, and a lower bound on its μ from the counts of one rule."""

import math
from dataclasses import dataclass
from typing import SupportsIndex, overload

import numpy as np
from scipy import special

from securekd_attacks.bounds.assumptions import (
    ASSUMES_FIXED_THRESHOLD,
    ASSUMES_GAUSSIAN,
    ASSUMES_INDEPENDENT_TRIALS,
    NOT_SAFETY,
    assumes_delta,
)
from securekd_attacks.bounds.search import last_refuted
from securekd_attacks.errors import BadSetting
from securekd_attacks.inputs import FloatArray, check_confidence, check_counts, check_delta
from securekd_attacks.intervals import binomial_upper


@dataclass(frozen=True)
class GaussianBound:
    """A lower bound on μ, and so on ε, of a mechanism whose trade-off is taken to be Gaussian.

    Attributes:
        epsilon_lower: at least 0, finite: the ε of a Gaussian mechanism with `mu_lower` at this δ.
        mu_lower: at least 0, finite; with the stated confidence, a Gaussian mechanism's μ is no smaller.
        delta: the δ that `epsilon_lower` belongs to.
        confidence: one-sided.
        fnr_high: exact upper limit of the FNR, at half the error.
        fpr_high: exact upper limit of the FPR, at half the error.
        true_positives: members called members.
        members: trials with the record in.
        false_positives: non-members called members.
        nonmembers: trials with the record out.
        assumptions: what must hold for the bound to hold, one sentence each.
    """

    epsilon_lower: float
    mu_lower: float
    delta: float
    confidence: float
    fnr_high: float
    fpr_high: float
    true_positives: int
    members: int
    false_positives: int
    nonmembers: int
    assumptions: tuple[str, ...]


def gdp(
    true_positives: SupportsIndex,
    members: SupportsIndex,
    false_positives: SupportsIndex,
    nonmembers: SupportsIndex,
    delta: float,
    confidence: float = 0.95,
) -> GaussianBound:
    """Lower bound on μ from a rule fixed in advance, if the trade-off is Gaussian (Nasr et al. 2023, section 4.2).

    Under μ-GDP, FNR ≥ Φ(Φ⁻¹(1 − FPR) − μ). So μ is at least Φ⁻¹(1 − FPR) − Φ⁻¹(FNR), here at exact upper limits of both
    rates, each wrong with probability at most (1 − confidence)/2. Where this is negative, nothing is shown and the
    bound is 0; its absolute value would report a leak where the rule guesses.

    Args:
        true_positives: 0 to `members`.
        members: at least 1.
        false_positives: 0 to `nonmembers`.
        nonmembers: at least 1.
        delta: in (0, 1): a Gaussian mechanism has no finite ε at 0.
        confidence: in (0, 1), one-sided.

    Raises:
        BadCounts: the counts are impossible.
        BadSetting: δ or the confidence is out of range.
    """
    delta, confidence = check_positive_delta(delta), check_confidence(confidence)
    hits, inside = check_counts("true positives of members", true_positives, members)
    alarms, outside = check_counts("false positives of non-members", false_positives, nonmembers)
    tail = (1.0 - confidence) / 2.0
    fnr_high = float(binomial_upper(inside - hits, inside, tail))
    fpr_high = float(binomial_upper(alarms, outside, tail))
    # Both limits are positive; where one is 1, nothing is shown, and the difference of infinities is not taken.
    shown = -math.inf if max(fnr_high, fpr_high) >= 1.0 else -float(special.ndtri(fpr_high) + special.ndtri(fnr_high))
    mu = max(0.0, shown)
    return GaussianBound(
        epsilon_lower=gaussian_epsilon(mu, delta),
        mu_lower=mu,
        delta=delta,
        confidence=confidence,
        fnr_high=fnr_high,
        fpr_high=fpr_high,
        true_positives=hits,
        members=inside,
        false_positives=alarms,
        nonmembers=outside,
        assumptions=(
            ASSUMES_GAUSSIAN,
            ASSUMES_FIXED_THRESHOLD,
            ASSUMES_INDEPENDENT_TRIALS,
            f"The error of {1.0 - confidence:.3g} is split in halves: one for the FNR's limit, one for the FPR's.",
            assumes_delta(delta),
            NOT_SAFETY,
        ),
    )


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The ε of a Gaussian mechanism: where Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) = δ (Dong, Roth and Su 2022, cor. 2.13).

    Args:
        mu: sensitivity over noise, at least 0, finite.
        delta: in (0, 1).

    Returns:
        At least 0, finite; 0 where the mechanism is (0, δ)-DP. The lower end of the last bracket.

    Raises:
        BadSetting: μ or δ is out of range.
    """
    mu, delta = check_mu(mu), check_positive_delta(delta)
    return 0.0 if mu == 0.0 else last_refuted(lambda epsilon: _gaussian_delta(mu, epsilon) > delta)


@overload
def gaussian_tpr(mu: float, fpr: float) -> float: ...
@overload
def gaussian_tpr(mu: float, fpr: FloatArray) -> FloatArray: ...
def gaussian_tpr(mu: float, fpr: float | FloatArray) -> float | FloatArray:
    """The TPR of the best test of N(0, 1) against N(μ, 1): Φ(μ + Φ⁻¹(FPR)) (Dong, Roth and Su 2022, equation 6).

    Args:
        mu: at least 0, finite.
        fpr: in [0, 1], a number or an array of any shape.

    Raises:
        BadSetting: something is out of range.
    """
    mu, rates = check_mu(mu), np.asarray(fpr, dtype=np.float64)
    outside = rates[~((rates >= 0.0) & (rates <= 1.0))]
    if outside.size:
        raise BadSetting("fpr out of range", value=float(outside.flat[0]), remedy="choose rates in [0, 1]")
    tpr = special.ndtr(mu + special.ndtri(rates))
    return tpr if isinstance(fpr, np.ndarray) else float(tpr)


def check_positive_delta(delta: float) -> float:
    """Give back a δ in (0, 1), or raise BadSetting."""
    if check_delta(delta) == 0.0:
        raise BadSetting(
            "a Gaussian mechanism has no finite ε at δ = 0",
            value=delta,
            remedy="choose a δ above 0, or a bound that does not assume Gaussian noise",
        )
    return float(delta)


def check_mu(mu: float) -> float:
    """Give back a finite μ at or above 0, or raise BadSetting."""
    if not 0.0 <= mu < math.inf:
        raise BadSetting("mu out of range", value=mu, remedy="choose a finite one at or above 0")
    return float(mu)


def _gaussian_delta(mu: float, epsilon: float) -> float:
    shift = epsilon / mu
    return float(special.ndtr(mu / 2 - shift) - np.exp(epsilon + special.log_ndtr(-mu / 2 - shift)))
