"""Metrics: how well scores tell members from non-members, with the interval and the counts beside each figure.

All take plain score arrays, higher = more likely a member, in any order. They use nothing of the scores but their
order, so a strictly increasing transform changes nothing either (save the thresholds).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from securekd_attacks.inputs import FloatArray, IntArray, check_confidence, check_fpr, check_told_fpr, sorted_scores
from securekd_attacks.intervals import Interval, binomial_interval, binomial_lower, binomial_upper


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve: the chance that a member scores above a non-member, a tie counting half.

    Attributes:
        value: in [0, 1]; 0.5 is chance.
        low: lower end of the confidence interval.
        high: upper end.
        members: how many were scored.
        nonmembers: how many were scored.
        confidence: of the interval, two-sided.
    """

    value: float
    low: float
    high: float
    members: int
    nonmembers: int
    confidence: float


@dataclass(frozen=True)
class TprAtFpr:
    """The true positive rate of the best rule `score >= threshold` whose empirical FPR keeps within the target.

    Attributes:
        value: true positives over members.
        low: lower end of the exact interval of the TPR.
        high: upper end.
        fpr: the FPR that was asked for.
        realised_fpr: false positives over non-members, at most `fpr`.
        fpr_low: lower end of the exact interval of the realised FPR.
        fpr_high: upper end; often above `fpr`, and that is the honest state of things.
        threshold: the least score that is called a member; None where the rule calls nobody one.
        true_positives: members at or above the threshold.
        members: how many were scored.
        false_positives: non-members at or above the threshold.
        nonmembers: how many were scored.
        confidence: of both intervals, each by itself, two-sided.
        resolved: whether `nonmembers` reaches `nonmembers_needed`; where it does not, withhold the figure.
        nonmembers_needed: see `nonmembers_to_resolve`; None at an FPR of 0, which no number of them resolves.
    """

    value: float
    low: float
    high: float
    fpr: float
    realised_fpr: float
    fpr_low: float
    fpr_high: float
    threshold: float | None
    true_positives: int
    members: int
    false_positives: int
    nonmembers: int
    confidence: float
    resolved: bool
    nonmembers_needed: int | None


@dataclass(frozen=True, eq=False)
class Roc:
    """Every rule `score >= threshold` that the scores can tell apart, strictest first. Arrays are read-only.

    Attributes:
        thresholds: shape (k,), descending; the first is +inf, the rule that calls nobody a member.
        true_positives: shape (k,), members at or above each threshold; from 0 to `members`.
        false_positives: shape (k,), non-members at or above each; from 0 to `nonmembers`.
        fpr: shape (k,), false positives over non-members.
        value: shape (k,), the TPR: true positives over members.
        low: shape (k,), lower end of each TPR's exact interval: for each point by itself, no band for the whole curve.
        high: shape (k,), upper end.
        members: how many were scored.
        nonmembers: how many were scored.
        confidence: of each interval, two-sided.
    """

    thresholds: FloatArray
    true_positives: IntArray
    false_positives: IntArray
    fpr: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    members: int
    nonmembers: int
    confidence: float


def auc(members: ArrayLike, nonmembers: ArrayLike, confidence: float = 0.95) -> Auc:
    """Mann–Whitney's estimate of the AUC, ties counting half, with a confidence interval. O(N log N).

    The interval is Wilson's score interval (Wilson 1927) for a proportion out of n_eff trials, where n_eff is the
    number of independent trials that would vary as much as the AUC does: a(1 − a)/v, with the variance v of DeLong,
    DeLong and Clarke-Pearson (1988) and the t quantile of Brunner and Munzel (2000). Both a and v come from the
    scores with one pseudo-record put above all others and one below on either side (the device of Agresti and Coull
    1998), so that v is never zero: perfect separation and scores that are all tied get an interval with an inside.

    It covers the true AUC in about 95% of samples at 0.95, more where the AUC is near 0 or 1; with two records a side
    it may be 91%. Records must be independent of each other given their side.

    Args:
        members: shape (m,), finite, m at least 2.
        nonmembers: shape (n,), finite, n at least 2.
        confidence: in (0, 1).

    Raises:
        NotFiniteScores, TooFewRecords, ShapeMismatch: the scores are unfit.
        BadSetting: the confidence is out of range.
    """
    confidence = check_confidence(confidence)
    inside, outside = sorted_scores(members, "members"), sorted_scores(nonmembers, "nonmembers")
    value = float(_half_ranks(inside, outside).sum()) / (2 * inside.size * outside.size)
    interval = _auc_interval(value, inside, outside, confidence)
    return Auc(
        value=value,
        low=interval.low,
        high=interval.high,
        members=inside.size,
        nonmembers=outside.size,
        confidence=confidence,
    )


def tpr_at_fpr(members: ArrayLike, nonmembers: ArrayLike, fpr: float, confidence: float = 0.95) -> TprAtFpr:
    """TPR of the best deterministic rule `score >= t` whose empirical FPR does not exceed `fpr`. O(N log N).

    The rule takes the least threshold that the non-members allow. Nothing is interpolated: where ties leave a choice
    between too many false positives and fewer than asked, it is fewer, and `realised_fpr` says so.

    Both intervals are Clopper and Pearson's. Non-members alone place the threshold, so the TPR's interval is exact
    for the rule that was found. The FPR's is exact too where non-members are not tied at the threshold.

    At an FPR of 0, which tables of the literature print, it is the share of members above every non-member. It is told
    and never resolved: with more non-members the threshold only rises, and `fpr_high` says how large the FPR may be.

    Args:
        members: shape (m,), finite, m at least 2.
        nonmembers: shape (n,), finite, n at least 2.
        fpr: the target, 0 or in [1e-12, 1].
        confidence: in (0, 1).

    Raises:
        NotFiniteScores, TooFewRecords, ShapeMismatch: the scores are unfit.
        BadSetting: the FPR or the confidence is out of range.
    """
    fpr, confidence = check_told_fpr(fpr), check_confidence(confidence)
    inside, outside = sorted_scores(members, "members"), sorted_scores(nonmembers, "nonmembers")
    threshold = _least_threshold(inside, outside, fpr)
    true_positives = 0 if threshold is None else _at_or_above(inside, threshold)
    false_positives = 0 if threshold is None else _at_or_above(outside, threshold)
    tpr_interval = binomial_interval(true_positives, inside.size, confidence)
    fpr_interval = binomial_interval(false_positives, outside.size, confidence)
    needed = nonmembers_to_resolve(fpr, confidence) if fpr > 0.0 else None
    return TprAtFpr(
        value=true_positives / inside.size,
        low=tpr_interval.low,
        high=tpr_interval.high,
        fpr=fpr,
        realised_fpr=false_positives / outside.size,
        fpr_low=fpr_interval.low,
        fpr_high=fpr_interval.high,
        threshold=threshold,
        true_positives=true_positives,
        members=inside.size,
        false_positives=false_positives,
        nonmembers=outside.size,
        confidence=confidence,
        resolved=needed is not None and outside.size >= needed,
        nonmembers_needed=needed,
    )


def nonmembers_to_resolve(fpr: float, confidence: float = 0.95) -> int:
    """The fewest non-members with which any rule can be shown to keep an FPR.

    A rule that calls none of n non-members a member has, with this confidence, an FPR of at most
    1 − (1 − confidence)^(1/n): about 3/n at 0.95, the "rule of three". With fewer non-members than it takes to bring
    this down to `fpr`, even a spotless record says nothing about so small a rate, and the TPR beside it belongs to
    some other, unknown FPR. At 0.95 it takes 29 for 10%, 299 for 1%, 2,995 for 0.1%.

    Args:
        fpr: the target, in [1e-12, 1].
        confidence: in (0, 1), one-sided.

    Raises:
        BadSetting: the FPR or the confidence is out of range.
    """
    fpr, confidence = check_fpr(fpr), check_confidence(confidence)
    if fpr == 1.0:
        return 1
    return math.ceil(math.log1p(-confidence) / math.log1p(-fpr))


def roc(members: ArrayLike, nonmembers: ArrayLike, confidence: float = 0.95) -> Roc:
    """The empirical ROC curve: one point per distinct score, no hull, no interpolation. O(N log N).

    Args:
        members: shape (m,), finite, m at least 2.
        nonmembers: shape (n,), finite, n at least 2.
        confidence: in (0, 1), of the interval at each point.

    Raises:
        NotFiniteScores, TooFewRecords, ShapeMismatch: the scores are unfit.
        BadSetting: the confidence is out of range.
    """
    confidence = check_confidence(confidence)
    inside, outside = sorted_scores(members, "members"), sorted_scores(nonmembers, "nonmembers")
    thresholds = np.append(np.inf, np.unique(np.concatenate([inside, outside]))[::-1])
    true_positives = inside.size - np.searchsorted(inside, thresholds, side="left")
    false_positives = outside.size - np.searchsorted(outside, thresholds, side="left")
    tail = (1.0 - confidence) / 2.0
    curve = Roc(
        thresholds=thresholds,
        true_positives=true_positives,
        false_positives=false_positives,
        fpr=false_positives / outside.size,
        value=true_positives / inside.size,
        low=binomial_lower(true_positives, inside.size, tail),
        high=binomial_upper(true_positives, inside.size, tail),
        members=inside.size,
        nonmembers=outside.size,
        confidence=confidence,
    )
    for points in (curve.thresholds, curve.true_positives, curve.false_positives):
        points.setflags(write=False)
    for rates in (curve.fpr, curve.value, curve.low, curve.high):
        rates.setflags(write=False)
    return curve


def _auc_interval(value: float, inside: FloatArray, outside: FloatArray, confidence: float) -> Interval:
    """Wilson's interval around the AUC, with the effective number of trials that `auc` explains."""
    above, below = _with_pseudo_records(inside, outside)
    wins = _half_ranks(above, below) / (2 * below.size)
    losses = 1.0 - _half_ranks(below, above) / (2 * above.size)
    parts = np.array([wins.var(ddof=1) / above.size, losses.var(ddof=1) / below.size])
    variance = float(parts.sum())
    degrees = variance**2 / float((parts**2 / [above.size - 1, below.size - 1]).sum())
    centre = float(wins.mean())
    trials = centre * (1.0 - centre) / variance
    # The lower tail, because 1 − tail has no digits left for a confidence close to one.
    quantile = float(special.stdtrit(degrees, (1.0 - confidence) / 2.0))
    spread = quantile**2 / trials
    middle = (value + spread / 2.0) / (1.0 + spread)
    half = math.sqrt(spread * value * (1.0 - value) + spread**2 / 4.0) / (1.0 + spread)
    # Algebra puts both ends into [0, 1] with the value between them; rounding may miss by a bit.
    return Interval(low=max(0.0, min(value, middle - half)), high=min(1.0, max(value, middle + half)))


def _with_pseudo_records(inside: FloatArray, outside: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both sides as ascending ranks, with one pseudo-record below and one above all others on each."""
    distinct = np.unique(np.concatenate([inside, outside]))
    top = float(distinct.size)
    ranks = [np.searchsorted(distinct, side).astype(np.float64) for side in (inside, outside)]
    return np.concatenate([[-1.0], ranks[0], [top]]), np.concatenate([[-1.0], ranks[1], [top]])


def _half_ranks(scores: FloatArray, others: FloatArray) -> IntArray:
    """For each score, twice the number of `others` (ascending) below it, plus the number tied with it."""
    return np.searchsorted(others, scores, side="left") + np.searchsorted(others, scores, side="right")


def _least_threshold(inside: FloatArray, outside: FloatArray, fpr: float) -> float | None:
    """The least observed score with at most fpr · n non-members at or above it, or None if there is none."""
    allowed = math.floor(fpr * outside.size)
    # The product is rounded: 0.29 · 100 falls below 29, yet 29/100 does keep an FPR of 0.29. The quotient decides.
    if (allowed + 1) / outside.size <= fpr:
        allowed += 1
    elif allowed / outside.size > fpr:
        allowed -= 1
    if allowed == outside.size:
        return float(min(inside[0], outside[0]))
    cut = outside[outside.size - 1 - allowed]
    above = [
        float(side[position])
        for side in (inside, outside)
        if (position := int(np.searchsorted(side, cut, side="right"))) < side.size
    ]
    return min(above, default=None)


def _at_or_above(ascending: FloatArray, threshold: float) -> int:
    return ascending.size - int(np.searchsorted(ascending, threshold, side="left"))
