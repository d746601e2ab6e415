"""Releases of a federated run, as vectors: the best test there is, what it can reach, and whether the noise is there.

A client whose record adds the vector d to its release, of length Δ = ‖d‖, with normal noise of standard deviation σ in
every coordinate, gives way by μ = Δ/σ. A sum over N clients, of whom t tell the adversary their noise, has μ =
Δ/(σ √(N − t)); T rounds with the same d and fresh noise make √T of it.
"""

import math
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from securekd_attacks.attacks import lira
from securekd_attacks.errors import BadSetting, ReleaseNotSeen, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, check_counts, finite_matrix, finite_scores
from securekd_attacks.references.inclusion import check_references


@dataclass(frozen=True)
class ReleaseCheck:
    """Whether scores of the optimal test behave as the stated noise and sensitivity have it.

    Attributes:
        mu: what was stated.
        noise: estimated standard deviation of the scores about their means; 1 where the stated noise is there.
        noise_p_value: chance of so small a spread if the noise is at least what was stated.
        shift: estimated distance of the two sides' means; at most `mu` where the clip holds.
        shift_p_value: chance of so large a distance if it is at most `mu`, with the spread as it was measured.
        passed: whether neither p-value is below half of 1 − confidence.
        confidence: of both together, that a sound release passes.
        members: trials with the record.
        nonmembers: trials without it.
    """

    mu: float
    noise: float
    noise_p_value: float
    shift: float
    shift_p_value: float
    passed: bool
    confidence: float
    members: int
    nonmembers: int


def release_mu(
    sensitivity: float,
    sigma: float,
    clients: SupportsIndex = 1,
    colluders: SupportsIndex = 0,
    rounds: SupportsIndex = 1,
) -> float:
    """The μ of the optimal attack: Δ√T/(σ√(N − t)).

    Args:
        sensitivity: Δ, by which one client's record moves the sum at most, above 0.
        sigma: standard deviation of each client's noise, above 0.
        clients: N, whose releases are summed; 1 for a single release.
        colluders: t, fewer than `clients`, whose noise the adversary knows.
        rounds: T, at least 1, with fresh noise each.

    Raises:
        BadSetting: a length that is not positive and finite, or no honest client left.
        BadCounts: numbers that cannot be counted.
    """
    for name, value in (("sensitivity", sensitivity), ("sigma", sigma)):
        if not 0.0 < value < math.inf:
            raise BadSetting(f"{name} out of range", value=value, remedy="choose a finite one above 0")
    known, everyone = check_counts("colluders of clients", colluders, clients)
    if known == everyone:
        raise BadSetting("no honest client is left", value=known, remedy="count fewer colluders than clients")
    _, times = check_counts("rounds", 0, rounds)
    return sensitivity * math.sqrt(times) / (sigma * math.sqrt(everyone - known))


def release_scores(releases: ArrayLike, without: ArrayLike, direction: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """The Neyman–Pearson score of each trial: the inner product with the whitened direction of sensitivity.

    Scores are N(0, 1) without the record and N(μ, 1) with it, where μ is the whitened direction's length.

    Args:
        releases: shape (n, D), or (n, T, D) for T rounds: what was seen in each trial.
        without: shape (D,) or (T, D), what would be seen on average without the record; broadcast over trials.
        direction: shape (D,) or (T, D), what the record adds; not all zero.
        sigma: standard deviation of the *whole* noise that the adversary does not know (σ√(N − t) for a sum): a
            number, or one for each coordinate, positive.

    Returns:
        Shape (n,), finite; higher = more likely with the record.

    Raises:
        ShapeMismatch, NotFiniteScores, TooFewRecords: unfit vectors.
        BadSetting: a σ that is not positive, or a direction of length zero.
    """
    seen = np.asarray(releases, dtype=np.float64)
    if seen.ndim not in (2, 3):
        raise ShapeMismatch("releases must be vectors", value=seen.shape, remedy="pass (n, D) or (n, T, D)")
    try:
        moved = np.broadcast_to(np.asarray(direction, dtype=np.float64), seen.shape[1:])
        spread = np.broadcast_to(np.asarray(sigma, dtype=np.float64), seen.shape[1:])
        rest = seen - np.asarray(without, dtype=np.float64)
    except ValueError:
        raise ShapeMismatch(
            "releases, mean, direction and sigma disagree",
            value=(seen.shape, np.shape(without), np.shape(direction), np.shape(sigma)),
            remedy="pass one entry per coordinate",
        ) from None
    if not (np.all(spread > 0.0) and np.all(np.isfinite(spread))):
        raise BadSetting("sigma out of range", value=float(spread.min()), remedy="choose finite ones above 0")
    flat = finite_matrix(rest.reshape(len(seen), -1), "releases")
    whitened = (moved / spread).ravel()
    length = float(np.linalg.norm(whitened))
    if not 0.0 < length < math.inf:
        raise BadSetting("the record moves nothing", value=length, remedy="pass a direction that is not zero")
    result: FloatArray = (flat / spread.ravel()) @ (whitened / length)
    return result


def check_release(members: ArrayLike, nonmembers: ArrayLike, mu: float, confidence: float = 0.95) -> ReleaseCheck:
    """Test that scores of `release_scores` have the stated noise, and move by no more than the stated sensitivity.

    A client that leaves out its noise makes the spread too small, a doubled clip the distance too large. Where the
    record moves the release by less than the sensitivity, the check still passes.

    Args:
        members: shape (m,), scores of trials with the record, m at least 2.
        nonmembers: shape (n,), scores of trials without it, n at least 2.
        mu: what the distance may be at most, at or above 0.
        confidence: in (0, 1), that a sound release passes.

    Raises:
        NotFiniteScores, TooFewRecords, ShapeMismatch: the scores are unfit.
        BadSetting: μ or the confidence is out of range.
    """
    if not 0.0 <= mu < math.inf:
        raise BadSetting("mu out of range", value=mu, remedy="choose a finite one at or above 0")
    if not 0.0 < confidence < 1.0:
        raise BadSetting("confidence out of range", value=confidence, remedy="choose one in (0, 1), such as 0.95")
    inside, outside = finite_scores(members, "members"), finite_scores(nonmembers, "nonmembers")
    freedom = inside.size + outside.size - 2
    squares = float(((inside - inside.mean()) ** 2).sum() + ((outside - outside.mean()) ** 2).sum())
    noise = math.sqrt(squares / freedom)
    shift = float(inside.mean() - outside.mean())
    error = max(noise, float(np.finfo(np.float64).tiny)) * math.sqrt(1.0 / inside.size + 1.0 / outside.size)
    noise_p = float(special.gammainc(freedom / 2.0, squares / 2.0))
    shift_p = float(special.stdtr(freedom, -(shift - mu) / error))
    return ReleaseCheck(
        mu=float(mu),
        noise=noise,
        noise_p_value=noise_p,
        shift=shift,
        shift_p_value=shift_p,
        passed=min(noise_p, shift_p) >= (1.0 - confidence) / 2.0,
        confidence=confidence,
        members=inside.size,
        nonmembers=outside.size,
    )


def coop_lira_scores(release_signals: ArrayLike, victim: SupportsIndex, *, individual: bool) -> FloatArray:
    """Co-op LiRA: other clients' individual releases stand in for reference models without the record.

    Every client is taken not to hold the victim's records. Offline LiRA with residual variance.

    Args:
        release_signals: shape (N, n): each client's signal (a scaled logit, as a rule) of each record, by its release
            or a model distilled from it.
        victim: the row that is attacked.
        individual: whether this observation point shows releases one by one. Under secure aggregation it does not.

    Returns:
        Shape (n,), higher = more likely that the victim holds the record.

    Raises:
        ReleaseNotSeen: releases are not seen one by one.
        TooFewRecords: fewer than two other clients.
        ShapeMismatch, NotFiniteScores, BadCounts: unfit signals, or no such row.
    """
    if not individual:
        raise ReleaseNotSeen(
            "Co-op LiRA takes other clients' releases as references", value="sums alone", remedy="attack the aggregate"
        )
    matrix = finite_matrix(release_signals, "release signals")
    row, last = check_counts("the victim's row", victim, max(1, len(matrix) - 1))
    if last < 2:
        raise TooFewRecords("too few other clients", value=len(matrix) - 1, remedy="give at least two")
    others = np.delete(matrix, row, axis=0)
    return lira.scores(matrix[row], others, np.zeros(others.shape, dtype=np.bool_), "residual", "offline")


def distillation_lira_scores(target: ArrayLike, students: ArrayLike, inclusion: ArrayLike) -> FloatArray:
    """Distillation LiRA: students that were distilled from the target stand in for models without the record.

    A student has what the target taught on its transfer set, and not what the target knows of a record by heart
    (Galichin et al. 2024). Offline LiRA with residual variance; online where students were distilled on the record is
    left to `lira.scores`.

    Args:
        target: shape (n,), the target's signals.
        students: shape (R, n), the students' signals of the same records.
        inclusion: shape (R, n), booleans: whether a record was in the student's transfer set.

    Returns:
        Shape (n,), higher = more likely a member.

    Raises:
        TooFewRecords: fewer than two students, or a record that all were distilled on.
        ShapeMismatch, NotFiniteScores: unfit signals.
    """
    own, matrix, included = check_references(target, students, inclusion)
    if len(matrix) < 2:
        raise TooFewRecords("too few students", value=len(matrix), remedy="distil at least two")
    return lira.scores(own, matrix, included, "residual", "offline")
