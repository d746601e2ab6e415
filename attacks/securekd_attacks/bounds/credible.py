"""A lower bound on ε as the end of a Bayesian credible interval."""

from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from scipy import special

from securekd_attacks.bounds.assumptions import (
    ASSUMES_FIXED_THRESHOLD,
    ASSUMES_INDEPENDENT_TRIALS,
    ASSUMES_JEFFREYS,
    NOT_SAFETY,
    assumes_delta,
)
from securekd_attacks.bounds.search import last_refuted
from securekd_attacks.errors import BadCounts
from securekd_attacks.inputs import FloatArray, check_confidence, check_counts, check_delta

JEFFREYS = 0.5
"""Both parameters of the beta prior of a rate."""

NODES = np.linspace(-8.5, 8.5, 681)
"""Where the posterior of the FPR is evaluated, in standard normal quantiles: the trapezoidal rule is all but exact."""


@dataclass(frozen=True)
class BayesianBound:
    """The lower end of a one-sided credible interval for ε.

    Attributes:
        epsilon_lower: at least 0, finite; where it is above 0, the posterior probability that the mechanism's ε at this
            δ is larger is at least `confidence`.
        delta: the δ it belongs to.
        confidence: the credible level.
        true_positives: members called members.
        true_negatives: non-members called non-members.
        false_positives: non-members called members.
        false_negatives: members called non-members.
        assumptions: what must hold for the bound to hold, one sentence each.
    """

    epsilon_lower: float
    delta: float
    confidence: float
    true_positives: int
    true_negatives: int
    false_positives: int
    false_negatives: int
    assumptions: tuple[str, ...]


def bayesian(
    true_positives: SupportsIndex,
    true_negatives: SupportsIndex,
    false_positives: SupportsIndex,
    false_negatives: SupportsIndex,
    delta: float,
    confidence: float = 0.95,
) -> BayesianBound:
    """Lower bound on ε by the joint posterior of FPR and FNR (Zanella-Béguelin et al. 2023, section 4).

    FNR and FPR have independent beta posteriors under Jeffreys' prior. The bound is the largest ε such that both rates
    lie below one of the two lower edges of the privacy region of (ε, δ), 1 − δ ≤ FPR + e^ε FNR or
    1 − δ ≤ FNR + e^ε FPR, each by itself, with posterior probability 1 − (1 − confidence)/2.

    Two things differ from the paper, for the sake of the error rate. What lies above the region, the reversed rule,
    does not count: else any posterior refutes ε = 0 at δ = 0. And the edges share the error: for a mechanism in the
    region's corner (randomised response) the probability of leaving it by *either* edge exceeds the true ε in 20% of
    audits at a nominal 5%.

    Args:
        true_positives: at least 0.
        true_negatives: at least 0.
        false_positives: at least 0; with the true negatives at least 1.
        false_negatives: at least 0; with the true positives at least 1.
        delta: in [0, 1).
        confidence: in (0, 1), one-sided.

    Raises:
        BadCounts: the counts are impossible.
        BadSetting: δ or the confidence is out of range.
    """
    delta, confidence = check_delta(delta), check_confidence(confidence)
    hits, misses = _check_side("members", true_positives, false_negatives)
    alarms, rejections = _check_side("non-members", false_positives, true_negatives)
    fpr = _quantiles(alarms, rejections)
    tail = (1.0 - confidence) / 2.0
    found = last_refuted(lambda epsilon: _compliance(fpr, hits, misses, epsilon, delta) <= tail)
    return BayesianBound(
        epsilon_lower=found,
        delta=delta,
        confidence=confidence,
        true_positives=hits,
        true_negatives=rejections,
        false_positives=alarms,
        false_negatives=misses,
        assumptions=(
            ASSUMES_JEFFREYS,
            ASSUMES_FIXED_THRESHOLD,
            ASSUMES_INDEPENDENT_TRIALS,
            assumes_delta(delta),
            NOT_SAFETY,
        ),
    )


def _check_side(name: str, called: SupportsIndex, left: SupportsIndex) -> tuple[int, int]:
    try:
        total = int(called.__index__()) + int(left.__index__())
    except AttributeError:
        raise BadCounts(f"{name} must be counted", value=(called, left), remedy="pass two integers") from None
    hits, total = check_counts(f"{name} called members", called, total)
    return hits, total - hits


def _quantiles(alarms: int, rejections: int) -> FloatArray:
    """The FPR's posterior at `NODES`, each tail from its own end, so that small rates keep their digits."""
    a, b = alarms + JEFFREYS, rejections + JEFFREYS
    result: FloatArray = np.where(
        NODES < 0,
        special.betaincinv(a, b, special.ndtr(NODES)),
        special.betainccinv(a, b, special.ndtr(-NODES)),
    )
    return result


def _compliance(fpr: FloatArray, hits: int, misses: int, epsilon: float, delta: float) -> float:
    """P[FNR at or above an edge of (ε, δ) at the FPR], of the edge for which that is least likely."""
    shallow = np.exp(-epsilon) * (1.0 - delta - fpr)
    # e^ε x as one exponential that is capped where it exceeds one anyway: nothing overflows.
    with np.errstate(divide="ignore"):
        steep = 1.0 - delta - np.exp(np.minimum(epsilon + np.log(fpr), 1.0))
    weights = np.exp(-NODES * NODES / 2.0)
    held = special.betaincc(misses + JEFFREYS, hits + JEFFREYS, np.clip([shallow, steep], 0.0, 1.0))
    return float((held @ weights).min() / weights.sum())
