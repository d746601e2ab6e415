"""A lower bound on ε from the counts of one fixed rule, and what an attack may reach under a given ε."""

import math
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from securekd_attacks.bounds.assumptions import (
    ASSUMES_FIXED_THRESHOLD,
    ASSUMES_INDEPENDENT_TRIALS,
    ASSUMES_PURE_HYPOTHESIS,
    assumes_delta,
)
from securekd_attacks.errors import BadSetting
from securekd_attacks.inputs import FloatArray, check_confidence, check_counts, check_delta, check_epsilon
from securekd_attacks.intervals import binomial_lower, binomial_upper


@dataclass(frozen=True)
class CountsBound:
    """A lower bound on ε from the counts of one rule.

    Attributes:
        epsilon_lower: at least 0, finite; with the stated confidence, the mechanism's ε at this δ is no smaller.
        delta: the δ it belongs to.
        confidence: one-sided.
        tpr_low: exact lower limit of the TPR, at half the error.
        fpr_high: exact upper limit of the FPR, at half the error.
        true_positives: members called members.
        members: trials with the record in.
        false_positives: non-members called members.
        nonmembers: trials with the record out.
        assumptions: what must hold for the bound to hold, one sentence each.
    """

    epsilon_lower: float
    delta: float
    confidence: float
    tpr_low: float
    fpr_high: float
    true_positives: int
    members: int
    false_positives: int
    nonmembers: int
    assumptions: tuple[str, ...]


def clopper_pearson(
    true_positives: int, members: int, false_positives: int, nonmembers: int, delta: float, confidence: float = 0.95
) -> CountsBound:
    """Lower bound on ε from a rule fixed in advance, by two exact limits (Jagielski et al. 2020).

    (ε, δ)-DP forces TPR ≤ e^ε FPR + δ and 1 − FPR ≤ e^ε (1 − TPR) + δ (the privacy region of Kairouz et al. 2015,
    section 2). With a lower limit of the TPR and an upper limit of the FPR, each wrong with probability at most
    (1 − confidence)/2, the larger of log((TPR − δ)/FPR) and log((1 − FPR − δ)/(1 − TPR)) is a lower bound on ε. Both
    follow from the same two limits, so taking the larger needs no further correction. The reversed rule (members
    score lower) is not tried.

    Args:
        true_positives: 0 to `members`.
        members: at least 1.
        false_positives: 0 to `nonmembers`.
        nonmembers: at least 1.
        delta: in [0, 1).
        confidence: in (0, 1), one-sided.

    Raises:
        BadCounts: the counts are impossible.
        BadSetting: δ or the confidence is out of range.
    """
    delta, confidence = check_delta(delta), check_confidence(confidence)
    true_positives, members = check_counts("true positives of members", true_positives, members)
    false_positives, nonmembers = check_counts("false positives of non-members", false_positives, nonmembers)
    tail = (1.0 - confidence) / 2.0
    refuted = float(refuted_epsilon(true_positives, members, false_positives, nonmembers, delta, confidence))
    return CountsBound(
        epsilon_lower=max(0.0, refuted),
        delta=delta,
        confidence=confidence,
        tpr_low=float(binomial_lower(true_positives, members, tail)),
        fpr_high=float(binomial_upper(false_positives, nonmembers, tail)),
        true_positives=true_positives,
        members=members,
        false_positives=false_positives,
        nonmembers=nonmembers,
        assumptions=(
            ASSUMES_FIXED_THRESHOLD,
            ASSUMES_INDEPENDENT_TRIALS,
            ASSUMES_PURE_HYPOTHESIS,
            f"The error of {1.0 - confidence:.3g} is split in halves: one for the TPR's limit, one for the FPR's.",
            assumes_delta(delta),
        ),
    )


def refuted_epsilon(
    true_positives: ArrayLike,
    members: int,
    false_positives: ArrayLike,
    nonmembers: int,
    delta: float,
    confidence: float,
) -> FloatArray:
    """The bound of `clopper_pearson` before it is cut at zero, for arrays of counts; −∞ where nothing is refuted.

    Counts and settings are not checked again here.
    """
    tail = (1.0 - confidence) / 2.0
    hits, alarms = np.asarray(true_positives), np.asarray(false_positives)
    tpr_low, fpr_high = binomial_lower(hits, members, tail), binomial_upper(alarms, nonmembers, tail)
    # The upper limits are positive whatever the counts, so both quotients are finite.
    fnr_high = binomial_upper(members - hits, members, tail)
    tnr_low = binomial_lower(nonmembers - alarms, nonmembers, tail)
    with np.errstate(divide="ignore"):
        upward = np.log(np.maximum(tpr_low - delta, 0.0)) - np.log(fpr_high)
        downward = np.log(np.maximum(tnr_low - delta, 0.0)) - np.log(fnr_high)
    result: FloatArray = np.maximum(upward, downward)
    return result


@overload
def ceiling(epsilon: float, delta: float, fpr: float) -> float: ...
@overload
def ceiling(epsilon: float, delta: float, fpr: FloatArray) -> FloatArray: ...
def ceiling(epsilon: float, delta: float, fpr: float | FloatArray) -> float | FloatArray:
    """The largest TPR that any attack can have at an FPR under (ε, δ)-DP: the edge of the privacy region.


    It is min(e^ε FPR + δ, 1 − e^−ε (1 − δ − FPR), 1) (Kairouz et al. 2015, section 2). An ε of infinity promises
    nothing: the ceiling is 1.

    Args:
        epsilon: at or above 0, or infinity.
        delta: in [0, 1).
        fpr: in [0, 1], a number or an array of any shape.

    Returns:
        A float for a number, an array of the same shape for an array; in [0, 1].

    Raises:
        BadSetting: something is out of range.
    """
    epsilon, delta = check_epsilon(epsilon), check_delta(delta)
    rates = np.asarray(fpr, dtype=np.float64)
    outside = rates[~((rates >= 0.0) & (rates <= 1.0))]
    if outside.size:
        raise BadSetting("fpr out of range", value=float(outside.flat[0]), remedy="choose rates in [0, 1]")
    if math.isinf(epsilon):
        steep = shallow = np.ones_like(rates)
    else:
        with np.errstate(divide="ignore"):
            # e^ε FPR as one exponential, capped where it exceeds one anyway: nothing overflows.
            steep = np.exp(np.minimum(epsilon + np.log(rates), 1.0)) + delta
        shallow = 1.0 - np.exp(-epsilon) * (1.0 - delta - rates)
    highest = np.minimum(np.minimum(steep, shallow), 1.0)
    return highest if isinstance(fpr, np.ndarray) else float(highest)


def auc_ceiling(epsilon: float, delta: float) -> float:
    """The largest AUC that any attack can have under (ε, δ)-DP: the area under `ceiling`.

    The two lines meet on the anti-diagonal, at FPR x = (1 − δ)/(1 + e^ε) and TPR 1 − x. What lies above them is a
    trapezoid of area x(1 − δ + x)/2 and a triangle of area x(1 − δ − x)/2, together x(1 − δ). So the area is
    1 − (1 − δ)²/(1 + e^ε).

    Args:
        epsilon: at or above 0, or infinity.
        delta: in [0, 1).

    Raises:
        BadSetting: something is out of range.
    """
    epsilon, delta = check_epsilon(epsilon), check_delta(delta)
    return float(1.0 - (1.0 - delta) ** 2 * special.expit(-epsilon))
