"""The best of several attacks, with a bound that stands although the best was chosen: by a split, or by Holm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from securekd_attacks.bounds.counts import CountsBound, clopper_pearson, refuted_epsilon
from securekd_attacks.bounds.split import FEWEST_TO_SPLIT, best_threshold
from securekd_attacks.errors import BadSetting, ShapeMismatch
from securekd_attacks.inputs import FloatArray, IntArray, check_confidence, check_delta, finite_scores
from securekd_attacks.scores import MembershipScores

Method = Literal["split", "holm"]
"""`split`: attack and threshold are chosen on one half of the records, and one bound is taken on the other.
`holm`: thresholds are chosen on one half, each attack is bounded on the other, and the errors are shared out.
"""

LEAST_P_VALUE = 1e-15
"""The least p-value that is told apart from zero: what a confidence next to one can hold."""

P_VALUE_HALVINGS = 24
"""Leaves a p-value uncertain by two millionths of itself, upwards."""


@dataclass(frozen=True)
class Candidate:
    """One of the attacks that were compared.

    Attributes:
        attack: its name.
        chosen: what it refutes on the half that its threshold was chosen on, perhaps below 0; no bound on anything,
            for it was looked for.
        held_out: the bound on the other half, at the confidence that the method leaves it; None where `split` took
            another attack's.
        p_value: of "ε is 0 at this δ" on the other half; under `holm` adjusted for the number of attacks, under
            `split` None for all but the best.
    """

    attack: str
    chosen: float
    held_out: CountsBound | None
    p_value: float | None


@dataclass(frozen=True)
class BestOf:
    """The best of several attacks.

    Attributes:
        attack: the name of the best.
        epsilon_lower: at least 0, finite; with `confidence`, in spite of the choice.
        delta: the δ it belongs to.
        confidence: one-sided.
        method: how the choice is paid for.
        candidates: all attacks, in the order given.
        assumptions: what must hold for the bound to hold, one sentence each.
    """

    attack: str
    epsilon_lower: float
    delta: float
    confidence: float
    method: Method
    candidates: tuple[Candidate, ...]
    assumptions: tuple[str, ...]


def best_of(
    scores: Sequence[MembershipScores],
    delta: float,
    confidence: float = 0.95,
    *,
    method: Method = "split",
    rng: np.random.Generator,
) -> BestOf:
    """The best of K attacks on the same records, with a lower bound on ε that holds although it was chosen.

    Of the largest of K bounds at 95% one in many exceeds the truth. Here either the choice is made on other records
    than the bound (`split`), or each of the K bounds has 1/K of the error (`holm`; the first step of Holm 1979 is
    Bonferroni's, and its further steps adjust the p-values beside them).

    Args:
        scores: of K attacks, each with the same records in the same order, at least 4 a side.
        delta: in [0, 1).
        confidence: in (0, 1), one-sided, of `epsilon_lower`.
        method: see `Method`.
        rng: draws the halves, the same for all attacks.

    Raises:
        BadSetting: no attack, two of one name, or a setting out of range.
        ShapeMismatch: attacks with different numbers of records.
        NotFiniteScores, TooFewRecords: the scores are unfit.
    """
    delta, confidence = check_delta(delta), check_confidence(confidence)
    if method not in ("split", "holm"):
        raise BadSetting("unknown method", value=method, remedy="choose split or holm")
    _refuse_unlike(scores)
    inside = rng.permutation(scores[0].members.size)
    outside = rng.permutation(scores[0].nonmembers.size)
    halved = [_halve(each, inside, outside, delta, confidence) for each in scores]
    if method == "split":
        found = _by_split(halved, delta, confidence)
        how = f"The best of {len(scores)} attacks, and its threshold, were chosen on half of the records, not counted."
    else:
        found = _by_holm(halved, delta, confidence)
        how = f"The best of {len(scores)} attacks was chosen after the fact: each has 1/{len(scores)} of the error."
    best, bound = max(
        ((each, each.held_out) for each in found if each.held_out is not None), key=lambda pair: pair[1].epsilon_lower
    )
    return BestOf(
        attack=best.attack,
        epsilon_lower=bound.epsilon_lower,
        delta=delta,
        confidence=confidence,
        method=method,
        candidates=tuple(found),
        assumptions=(how, *bound.assumptions),
    )


def holm(p_values: ArrayLike) -> FloatArray:
    """P-values adjusted so that rejecting those at or below α errs anywhere with probability at most α (Holm 1979).

    Args:
        p_values: shape (K,), in [0, 1], at least one.

    Returns:
        Shape (K,), in the order given: the running maximum of (K − i)·p of the i-th least.

    Raises:
        BadSetting: none, or out of [0, 1].
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0 or not np.all((given >= 0.0) & (given <= 1.0)):
        raise BadSetting("p-values out of range", value=given.shape, remedy="pass one or more in [0, 1]")
    order = np.argsort(given, kind="stable")
    steps = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _refuse_unlike(scores: Sequence[MembershipScores]) -> None:
    names = [each.attack for each in scores]
    if not names or len(set(names)) < len(names):
        raise BadSetting("attacks must have names of their own", value=names, remedy="pass each once, at least one")
    for side in ("members", "nonmembers"):
        sizes = [len(getattr(each, side)) for each in scores]
        if len(set(sizes)) > 1:
            raise ShapeMismatch(f"attacks differ in {side}", value=sizes, remedy="score the same records with each")


@dataclass(frozen=True)
class _Halved:
    """An attack's threshold and what it refutes on one half, with the counts of the other half."""

    attack: str
    chosen: float
    counts: tuple[int, int, int, int]


def _halve(scores: MembershipScores, inside: IntArray, outside: IntArray, delta: float, confidence: float) -> _Halved:
    members = finite_scores(scores.members, "members", fewest=FEWEST_TO_SPLIT)[inside]
    nonmembers = finite_scores(scores.nonmembers, "nonmembers", fewest=FEWEST_TO_SPLIT)[outside]
    middle_in, middle_out = members.size // 2, nonmembers.size // 2
    first, second = (members[:middle_in], nonmembers[:middle_out]), (members[middle_in:], nonmembers[middle_out:])
    threshold = best_threshold(*first, delta, confidence)
    return _Halved(
        attack=scores.attack,
        chosen=float(refuted_epsilon(*_counts(*first, threshold), delta, confidence)),
        counts=_counts(*second, threshold),
    )


def _by_split(halved: Sequence[_Halved], delta: float, confidence: float) -> list[Candidate]:
    best = int(np.argmax([each.chosen for each in halved]))
    return [
        Candidate(each.attack, each.chosen, None, None)
        if position != best
        else Candidate(
            each.attack,
            each.chosen,
            clopper_pearson(*each.counts, delta=delta, confidence=confidence),
            _p_value(each.counts, delta),
        )
        for position, each in enumerate(halved)
    ]


def _by_holm(halved: Sequence[_Halved], delta: float, confidence: float) -> list[Candidate]:
    shared = 1.0 - (1.0 - confidence) / len(halved)
    adjusted = holm([_p_value(each.counts, delta) for each in halved])
    return [
        Candidate(each.attack, each.chosen, clopper_pearson(*each.counts, delta=delta, confidence=shared), float(p))
        for each, p in zip(halved, adjusted, strict=True)
    ]


def _counts(members: FloatArray, nonmembers: FloatArray, threshold: float) -> tuple[int, int, int, int]:
    hits, alarms = int(np.count_nonzero(members >= threshold)), int(np.count_nonzero(nonmembers >= threshold))
    return hits, members.size, alarms, nonmembers.size


def _p_value(counts: tuple[int, int, int, int], delta: float) -> float:
    """The least error at which the bound is above 0, by halving its logarithm; the upper end of the last bracket."""
    low, high = math.log(LEAST_P_VALUE), 0.0
    for _ in range(P_VALUE_HALVINGS):
        middle = (low + high) / 2.0
        shown = float(refuted_epsilon(*counts, delta, 1.0 - math.exp(middle))) > 0.0
        low, high = (low, middle) if shown else (middle, high)
    return math.exp(high)
