"""From whatever a target returns to `Answers`: each kind of output is told by its content, all else is refused."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import AttackInputError
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.signals import ROW_SUM_TOLERANCE, check_log_probs
from securekd_attacks.targets import rounding
from securekd_attacks.targets.errors import BadAnswer
from securekd_attacks.targets.records import Answers
from securekd_attacks.token_signals import check_token_log_probs

OUTPUT_KINDS = ("log_probs", "probs", "logits")


@dataclass(frozen=True, eq=False)
class Distributions:
    """What a classifier says of n records.

    Attributes:
        log_probs: shape (n, C), natural logarithms; each row sums to one within `ROW_SUM_TOLERANCE`.
        rounding: shape (n,): the step of the rounding that a row needed to be accepted, see `rounding.Rounding`; such
            rows were divided by their sum. 0 where it summed to one.
    """

    log_probs: FloatArray
    rounding: FloatArray


def told_apart(output: ArrayLike, records: int) -> Answers:
    """Read log-probabilities or probabilities (floats (n, C) whose rows are distributions), or labels (integers (n,)).

    The two kinds of distributions cannot be taken for each other: one has no value above zero, the other none below.

    Raises:
        BadAnswer: another shape, NaN, or rows that are neither; logits are refused, since they tell no probabilities
            apart from another model's.
    """
    try:
        array = np.asarray(output)
    except Exception as error:  # lists of different lengths, or another library's arrays
        raise BadAnswer("the target's output is no array", value=error, remedy="return a numpy array") from error
    if array.dtype.kind in "iu":
        return Answers(predicted=labels_alone(array, records))
    if array.dtype.kind != "f" or array.ndim != 2:
        raise BadAnswer(
            "the target's output is no matrix of floats and no vector of integers",
            value=f"{array.dtype}, shape {array.shape}",
            remedy="return log-probabilities or probabilities (n, C), or labels (n,)",
        )
    with np.errstate(invalid="ignore"):
        kind = "probs" if bool((array >= 0.0).all()) else "log_probs"
    found = distributions(kind, array, records)
    return Answers(log_probs=found.log_probs, rounding=found.rounding)


def distributions(kind: str, output: ArrayLike, records: int) -> Distributions:
    """Read one of `OUTPUT_KINDS`, numbers of shape (n, C).

    Raises:
        BadAnswer: another shape, NaN, +inf, or rows that are no distributions and that rounding does not explain.
    """
    if kind == "logits":
        return Distributions(of_logits(output, records), np.zeros(records))
    return of_probabilities(output, records) if kind == "probs" else of_log_probs(output, records)


def of_log_probs(output: ArrayLike, records: int) -> Distributions:
    """Check log-probabilities, shape (n, C), −∞ allowed; rows that are rounded are normalised."""
    array, steps = np.asarray(output), np.zeros(records)
    if array.ndim == 2 and len(array) == records and array.dtype.kind == "f" and bool((array < np.inf).all()):
        array = array.astype(np.float64)
        with np.errstate(over="ignore"):
            sums = np.exp(array).sum(axis=1)
            steps = _steps(array, sums, np.exp, "pass log_softmax of the logits, computed in float32 or better")
        if steps.any():
            array -= np.log(sums)[:, None]
    return Distributions(_checked(array, records), steps)


def of_probabilities(output: ArrayLike, records: int) -> Distributions:
    """Take the logarithm of probabilities, shape (n, C); each row is first divided by its sum, which must be near 1."""
    array = np.asarray(output, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0 or not bool((array >= 0.0).all()):
        raise BadAnswer("the target's probabilities are none", value=array.shape, remedy="give (n, C), none below zero")
    sums = array.sum(axis=1)
    steps = _steps(array, sums, lambda chances: chances, "give every class, as probabilities or as log_softmax")
    with np.errstate(divide="ignore"):
        return Distributions(_checked(np.log(array / sums[:, None]), records), steps)


def of_logits(output: ArrayLike, records: int) -> FloatArray:
    """Normalise logits, shape (n, C), in float64: log_softmax."""
    from scipy import special

    array = np.asarray(output, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0 or np.isnan(array).any() or (array == np.inf).any():
        raise BadAnswer("the target's logits are none", value=array.shape, remedy="give (n, C) without NaN or +inf")
    return _checked(special.log_softmax(array, axis=1), records)


def labels_alone(output: ArrayLike, records: int) -> IntArray:
    """Check labels, shape (n,), integers from 0."""
    array = np.asarray(output)
    if array.dtype.kind not in "iu" or array.ndim != 1 or not _fits(array):
        raise BadAnswer("the target's labels are none", value=array.dtype, remedy="give (n,) integers from 0")
    _one_each(array, records)
    return array.astype(np.int64)


def _fits(labels: NDArray[np.integer]) -> bool:
    return labels.size == 0 or (int(labels.min()) >= 0 and int(labels.max()) <= np.iinfo(np.int64).max)


def of_tokens(output: ArrayLike) -> FloatArray:
    """Check one text's token log-probabilities, shape (T,)."""
    try:
        return check_token_log_probs(np.asarray(output, dtype=np.float64))
    except AttackInputError as error:
        raise BadAnswer("the target's tokens are unfit", value=error, remedy="look into the target") from error


def _checked(log_probs: ArrayLike, records: int) -> FloatArray:
    try:
        array = check_log_probs(log_probs)
    except AttackInputError as error:
        raise BadAnswer("the target's output is unfit", value=error, remedy="look into the target") from error
    return _one_each(array, records)


def _steps(
    values: FloatArray, sums: FloatArray, chances: Callable[[FloatArray], FloatArray], remedy: str
) -> FloatArray:
    """For each row the step of the rounding that explains why it does not sum to one, 0 where it does.

    Raises:
        BadAnswer: a row whose digits do not explain it.
    """
    steps = np.zeros(len(sums))
    off = np.flatnonzero(~(np.abs(sums - 1.0) <= ROW_SUM_TOLERANCE))
    if not off.size:
        return steps
    seen = rounding.seen_in(values)
    if seen is not None:
        steps[off] = np.where(seen.explains(values[off], chances) & (sums[off] > 0.0), seen.step, 0.0)
    bad = off[steps[off] == 0.0]
    if bad.size:
        first = float(sums[bad[0]])
        raise BadAnswer(
            f"the target's probabilities do not sum to one in {bad.size} rows, first in row {bad[0]}",
            value=f"{first:.6g}" + ("" if seen is None else f", which rounding to {seen.name} does not explain"),
            remedy="divide percentages by 100" if abs(first - 100.0) <= 1.0 else remedy,
        )
    return steps


def _one_each(array: FloatArray, records: int) -> FloatArray:
    if len(array) != records:
        raise BadAnswer("the target answered another number", value=f"{len(array)} for {records}", remedy="one each")
    return array
