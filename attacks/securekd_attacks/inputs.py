"""Checks shared by the modules that take scores, counts and settings: they raise or give back the clean value."""

import math
import operator
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import BadCounts, BadSetting, NotFiniteScores, ShapeMismatch, TooFewRecords

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LOG_ZERO = float(np.log(np.nextafter(0.0, 1.0)))
"""The least logarithm that a signal uses, about −744.44."""

FEWEST_RECORDS = 2
"""Members, and non-members, below which no figure is given: one record shows no spread."""

SMALLEST_FPR = 1e-12
"""The least FPR that may be asked for; no audit has the records to resolve less."""


def finite_scores(scores: ArrayLike, side: str, fewest: int = FEWEST_RECORDS) -> FloatArray:
    """Give the scores of one side as a new float64 array, in the order given.

    Args:
        scores: shape (n,), n at least `fewest`, finite real numbers; higher = more likely a member.
        side: "members" or "nonmembers", for the error's text.
        fewest: how many records the figure needs.

    Raises:
        ShapeMismatch: not one-dimensional.
        TooFewRecords: fewer than `fewest`.
        NotFiniteScores: NaN, an infinity, or something that is no real number.
    """
    array = np.asarray(scores)
    if array.ndim != 1:
        raise ShapeMismatch(
            f"scores of {side} must be one-dimensional", value=array.shape, remedy="pass one per record"
        )
    if array.size < fewest:
        raise TooFewRecords(f"too few {side}", value=array.size, remedy=f"score at least {fewest} records")
    if array.dtype.kind not in "biuf":
        raise NotFiniteScores(f"scores of {side} are no real numbers", value=array.dtype, remedy="pass floats")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise NotFiniteScores(
            f"scores of {side} are not finite at {bad.size} records, first at index {bad[0]}",
            value=array[bad[0]],
            remedy="use the signals of this package, which keep a probability of zero finite, or drop these records",
        )
    return array


def finite_matrix(values: ArrayLike, name: str) -> NDArray[np.floating]:
    """Give back a matrix of at least one row and one column whose values are finite; float32 and float64 as they are.

    Args:
        values: two-dimensional, finite real numbers.
        name: what they are, for the error's text.

    Raises:
        ShapeMismatch: not two-dimensional.
        TooFewRecords: empty.
        NotFiniteScores: NaN, an infinity, or something that is no real number.
    """
    array = np.asarray(values)
    if array.ndim != 2:
        raise ShapeMismatch(f"{name} must be a matrix", value=array.shape, remedy="pass two dimensions")
    if array.size == 0:
        raise TooFewRecords(f"no {name}", value=array.shape, remedy="pass at least one row and one column")
    if array.dtype.kind not in "biuf":
        raise NotFiniteScores(f"{name} are no real numbers", value=array.dtype, remedy="pass floats")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    for row, each in enumerate(array):  # row by row: no mask as large as the matrix
        if not np.isfinite(each).all():
            column = int(np.flatnonzero(~np.isfinite(each))[0])
            raise NotFiniteScores(
                f"{name} are not finite, first at row {row}, column {column}",
                value=each[column],
                remedy="use the signals of this package, which keep a probability of zero finite",
            )
    return array


def sorted_scores(scores: ArrayLike, side: str, fewest: int = FEWEST_RECORDS) -> FloatArray:
    """Give the scores of one side in ascending order, checked as by `finite_scores`.

    Sorting first is what makes every figure independent of the order of the input, to the last bit.
    """
    return np.sort(finite_scores(scores, side, fewest))


def check_confidence(confidence: float) -> float:
    """Give back a confidence in (0, 1), or raise BadSetting."""
    return _check_range("confidence", confidence, 0.0 < confidence < 1.0, "choose one in (0, 1), such as 0.95")


def check_delta(delta: float) -> float:
    """Give back a δ in [0, 1), or raise BadSetting."""
    return _check_range("delta", delta, 0.0 <= delta < 1.0, "choose one in [0, 1), below one over the records")


def check_epsilon(epsilon: float) -> float:
    """Give back an ε in [0, inf], where infinity means that nothing is promised, or raise BadSetting."""
    return _check_range("epsilon", epsilon, epsilon >= 0.0, "choose one at or above 0; infinity stands for no promise")


def check_fpr(fpr: float) -> float:
    """Give back a target FPR in [1e-12, 1], or raise BadSetting."""
    return _check_range(
        "fpr",
        fpr,
        SMALLEST_FPR <= fpr <= 1.0,
        f"choose one in [{SMALLEST_FPR:g}, 1]; nothing resolves zero",
    )


def check_told_fpr(fpr: float) -> float:
    """Give back an FPR that a TPR is told at, zero or in [1e-12, 1], or raise BadSetting."""
    return _check_range(
        "fpr",
        fpr,
        fpr == 0.0 or SMALLEST_FPR <= fpr <= 1.0,
        f"choose 0, which stays unresolved, or one in [{SMALLEST_FPR:g}, 1]",
    )


def check_counts(name: str, hits: SupportsIndex, trials: SupportsIndex) -> tuple[int, int]:
    """Give back whole numbers with 0 ≤ hits ≤ trials and trials ≥ 1, or raise BadCounts."""
    try:
        whole_hits, whole_trials = operator.index(hits), operator.index(trials)
    except TypeError:
        raise BadCounts(f"{name} must be counted", value=(hits, trials), remedy="pass two integers") from None
    if whole_trials < 1 or not 0 <= whole_hits <= whole_trials:
        raise BadCounts(
            f"{name} out of range", value=f"{whole_hits} of {whole_trials}", remedy="pass 0 ≤ hits ≤ trials, trials ≥ 1"
        )
    return whole_hits, whole_trials


def _check_range(name: str, value: float, inside: bool, remedy: str) -> float:
    if not inside or math.isnan(value):
        raise BadSetting(f"{name} out of range", value=value, remedy=remedy)
    return float(value) + 0.0  # no -0.0
