"""A lower bound on ε straight from scores: the threshold is chosen on one half, the bound is taken on the other.

Choosing the threshold and computing the bound on the same records picks the luckiest of many rules, and then the
bound is wrong more often than it says. Two halves keep the error, at the price of half the records.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from securekd_attacks.bounds.counts import CountsBound, clopper_pearson, refuted_epsilon
from securekd_attacks.inputs import FloatArray, check_confidence, check_delta, sorted_scores
from securekd_attacks.metrics import roc

FEWEST_TO_SPLIT = 4
"""Members, and non-members, below which a half would hold a single record."""


@dataclass(frozen=True)
class SplitBound:
    """A lower bound on ε whose threshold was chosen on other records than the bound.

    Attributes:
        epsilon_lower: at least 0, finite.
        threshold: the rule is `score >= threshold`; None where the rule calls nobody a member.
        choosing_members: members of the half on which the threshold was chosen.
        choosing_nonmembers: non-members of that half.
        held_out: the bound on the other half, with its counts and limits.
        assumptions: what must hold for the bound to hold, one sentence each.
    """

    epsilon_lower: float
    threshold: float | None
    choosing_members: int
    choosing_nonmembers: int
    held_out: CountsBound
    assumptions: tuple[str, ...]


def split_bound(
    members: ArrayLike,
    nonmembers: ArrayLike,
    delta: float,
    confidence: float = 0.95,
    *,
    rng: np.random.Generator,
) -> SplitBound:
    """Lower bound on ε by `bounds.clopper_pearson` at a threshold that a random half of each side has chosen.

    The chosen threshold is the one with the largest bound on its own half; of several, the strictest. The result
    depends on the scores and on the generator's state, not on the order of the scores. With an odd number the extra
    record goes to the half that the bound is computed on.

    Args:
        members: shape (m,), finite, m at least 4.
        nonmembers: shape (n,), finite, n at least 4.
        delta: in [0, 1).
        confidence: in (0, 1), one-sided.
        rng: draws the halves; a generator in the same state gives the same result.

    Raises:
        NotFiniteScores, TooFewRecords, ShapeMismatch: the scores are unfit.
        BadSetting: δ or the confidence is out of range.
    """
    delta, confidence = check_delta(delta), check_confidence(confidence)
    choosing_in, held_in = _halves(sorted_scores(members, "members", fewest=FEWEST_TO_SPLIT), rng)
    choosing_out, held_out = _halves(sorted_scores(nonmembers, "nonmembers", fewest=FEWEST_TO_SPLIT), rng)
    threshold = best_threshold(choosing_in, choosing_out, delta, confidence)
    bound = clopper_pearson(
        true_positives=int(np.count_nonzero(held_in >= threshold)),
        members=held_in.size,
        false_positives=int(np.count_nonzero(held_out >= threshold)),
        nonmembers=held_out.size,
        delta=delta,
        confidence=confidence,
    )
    how = f"It was chosen on {choosing_in.size} members and {choosing_out.size} non-members, none of which is counted."
    return SplitBound(
        epsilon_lower=bound.epsilon_lower,
        threshold=threshold if np.isfinite(threshold) else None,
        choosing_members=choosing_in.size,
        choosing_nonmembers=choosing_out.size,
        held_out=bound,
        assumptions=(bound.assumptions[0], how, *bound.assumptions[1:]),
    )


def _halves(scores: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    shuffled = rng.permutation(scores)
    return shuffled[: scores.size // 2], shuffled[scores.size // 2 :]


def best_threshold(members: FloatArray, nonmembers: FloatArray, delta: float, confidence: float) -> float:
    """The threshold with the largest bound, +inf included. Below zero it is not cut, so the best of bad ones wins.

    The bound itself is no bound on anything, for it was looked for; take another one on records not used here.
    """
    curve = roc(members, nonmembers, confidence)
    bounds = refuted_epsilon(
        curve.true_positives, curve.members, curve.false_positives, curve.nonmembers, delta, confidence
    )
    return float(curve.thresholds[int(np.argmax(bounds))])
