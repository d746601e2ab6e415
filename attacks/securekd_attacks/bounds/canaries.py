"""Canaries: one-run bounds straight from scores, exposure of planted texts, and extraction of memorised ones."""

from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from securekd_attacks.bounds.single_run import OneRunBound, OneRunFdpBound, one_run, one_run_fdp
from securekd_attacks.errors import BadInclusion, NotFiniteScores, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, check_counts, finite_scores
from securekd_attacks.intervals import binomial_interval
from securekd_attacks.scores import MembershipScores


@dataclass(frozen=True)
class Guesses:
    """What an adversary guesses of canaries, and how often it is right.

    Attributes:
        canaries: how many a coin was thrown for.
        guesses: for how many of them it does not abstain.
        correct: how many guesses are right.
    """

    canaries: int
    guesses: int
    correct: int


@dataclass(frozen=True, eq=False)
class Exposure:
    """How far planted texts stand out among random ones of the same form (Carlini et al. 2019).

    Attributes:
        values: shape (n,), in bits, log2(candidates) − log2(rank), from 0 to `ceiling`; 1.44 is the mean by chance.
        ranks: shape (n,), from 1 (the least loss) to `candidates`; a tie counts against the canary.
        candidates: the random texts and the canary itself.
        ceiling: log2(candidates), the most that so many candidates can show.
    """

    values: FloatArray
    ranks: FloatArray
    candidates: int
    ceiling: float


@dataclass(frozen=True)
class ExtractionRate:
    """The share of memorised texts that a model continues word for word, with its exact interval.

    Attributes:
        value: extracted over sequences.
        low: lower end of the interval.
        high: upper end.
        extracted: sequences whose whole suffix was generated.
        sequences: how many were tried.
        confidence: of the interval, two-sided.
    """

    value: float
    low: float
    high: float
    extracted: int
    sequences: int
    confidence: float


def guess(scores: MembershipScores, guesses: SupportsIndex) -> Guesses:
    """Guess the canaries that are ranked highest in, and as many that are ranked lowest out.

    Half of the guesses, rounded up, go to the highest scores. Ties are broken against the adversary, so that the order
    of the input changes nothing and scores that tell nothing apart show nothing.

    Args:
        scores: of all canaries, those in and those out, with where they come from.
        guesses: 1 to the number of canaries; fix it before you look at the results.

    Raises:
        BadInclusion: canaries were not included by a fair coin each, as far as the scores say.
        BadCounts: more guesses than canaries.
    """
    origin = scores.provenance
    if origin is None or origin.inclusion != "bernoulli" or origin.probability != 0.5:
        raise BadInclusion(
            "a one-run bound needs each canary included by a fair coin of its own",
            value="nothing known" if origin is None else f"{origin.inclusion}, probability {origin.probability}",
            remedy="plant canaries with ShadowDesign or such coins; of a train/test split use split_bound",
        )
    canaries = scores.members.size + scores.nonmembers.size
    made, canaries = check_counts("guesses of canaries", guesses, canaries)
    values = np.concatenate([scores.members, scores.nonmembers])
    inside = np.repeat([True, False], [scores.members.size, scores.nonmembers.size])
    high = (made + 1) // 2
    # Among equal scores, those out come first at the top and those in first at the bottom.
    top = np.lexsort((inside, -values))[:high]
    rest = np.setdiff1d(np.arange(canaries), top, assume_unique=True)
    bottom = rest[np.lexsort((~inside[rest], values[rest]))][: made - high]
    return Guesses(canaries, made, int(np.count_nonzero(inside[top]) + np.count_nonzero(~inside[bottom])))


def one_run_bound(
    scores: MembershipScores, guesses: SupportsIndex, delta: float, confidence: float = 0.95
) -> OneRunBound:
    """`bounds.one_run` straight from scores. Errors as in `guess` and there."""
    made = guess(scores, guesses)
    return one_run(made.canaries, made.guesses, made.correct, delta, confidence)


def one_run_fdp_bound(
    scores: MembershipScores, guesses: SupportsIndex, delta: float, confidence: float = 0.95
) -> OneRunFdpBound:
    """`bounds.one_run_fdp` straight from scores. Errors as in `guess` and there."""
    made = guess(scores, guesses)
    return one_run_fdp(made.canaries, made.guesses, made.correct, delta, confidence)


def exposure(canary_losses: ArrayLike, candidate_losses: ArrayLike) -> Exposure:
    """Rank planted canaries among random texts that were not planted (Carlini et al. 2019, definition 5).

    Args:
        canary_losses: shape (n,), the target's loss of each planted canary, finite.
        candidate_losses: shape (k,), its loss of random texts of the same form, finite; k + 1 candidates can show
            log2(k + 1) bits.

    Raises:
        NotFiniteScores, TooFewRecords, ShapeMismatch: the losses are unfit.
    """
    planted = finite_scores(canary_losses, "canaries", fewest=1)
    others = np.sort(finite_scores(candidate_losses, "candidates", fewest=1))
    candidates = others.size + 1
    ranks = (1 + np.searchsorted(others, planted, side="right")).astype(np.float64)
    ceiling = float(np.log2(candidates))
    return Exposure(values=ceiling - np.log2(ranks), ranks=ranks, candidates=candidates, ceiling=ceiling)


def extraction_rate(generated: ArrayLike, suffixes: ArrayLike, confidence: float = 0.95) -> ExtractionRate:
    """Count prefixes that a model continues with exactly the suffix of its training data (Carlini et al. 2023).

    Args:
        generated: shape (n, L), token numbers that the model generated after each prefix.
        suffixes: shape (n, L), those that follow in the training data.
        confidence: in (0, 1), two-sided.

    Raises:
        ShapeMismatch: not two matrices of the same shape.
        TooFewRecords: no sequence, or suffixes without a token.
        NotFiniteScores: tokens that are not integers.
        BadSetting: the confidence is out of range.
    """
    ours, theirs = np.asarray(generated), np.asarray(suffixes)
    if ours.ndim != 2 or ours.shape != theirs.shape:
        raise ShapeMismatch("tokens disagree", value=(ours.shape, theirs.shape), remedy="pass two of shape (n, L)")
    if ours.size == 0:
        raise TooFewRecords("no tokens", value=ours.shape, remedy="pass at least one sequence of one token")
    if ours.dtype.kind not in "iu" or theirs.dtype.kind not in "iu":
        raise NotFiniteScores("tokens must be integers", value=(ours.dtype, theirs.dtype), remedy="pass their numbers")
    extracted = int(np.count_nonzero((ours == theirs).all(axis=1)))
    interval = binomial_interval(extracted, len(ours), confidence)
    return ExtractionRate(extracted / len(ours), interval.low, interval.high, extracted, len(ours), confidence)
