"""From whatever a target returns to `Answers`: each kind of output is told by its content, all else is refused."""

import numpy as np
from numpy.typing import ArrayLike

from securekd_attacks.errors import AttackInputError
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.signals import ROW_SUM_TOLERANCE, check_log_probs
from securekd_attacks.targets.errors import BadAnswer
from securekd_attacks.targets.records import Answers
from securekd_attacks.token_signals import check_token_log_probs


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
        sums = array.astype(np.float64).sum(axis=1)
        if (array >= 0.0).all() and (np.abs(sums - 1.0) <= ROW_SUM_TOLERANCE).all():
            return Answers(log_probs=of_probabilities(array, records))
    return Answers(log_probs=of_log_probs(array, records))


def of_log_probs(output: ArrayLike, records: int) -> FloatArray:
    """Check log-probabilities, shape (n, C), −∞ allowed."""
    try:
        array = check_log_probs(output)
    except AttackInputError as error:
        raise BadAnswer("the target's output is unfit", value=error, remedy="look into the target") from error
    return _one_each(array, records)


def of_probabilities(output: ArrayLike, records: int) -> FloatArray:
    """Take the logarithm of probabilities, shape (n, C); each row is first divided by its sum, which must be near 1."""
    array = np.asarray(output, dtype=np.float64)
    if array.ndim != 2 or not bool((array >= 0.0).all()):
        raise BadAnswer("the target's probabilities are none", value=array.shape, remedy="give (n, C), none below zero")
    sums = array.sum(axis=1, keepdims=True)
    if not bool((np.abs(sums - 1.0) <= ROW_SUM_TOLERANCE).all()):
        worst = float(sums[np.argmax(np.abs(sums - 1.0))][0])
        raise BadAnswer("the target's probabilities do not sum to one", value=worst, remedy="give every class")
    with np.errstate(divide="ignore"):
        return of_log_probs(np.log(array / sums), records)


def of_logits(output: ArrayLike, records: int) -> FloatArray:
    """Normalise logits, shape (n, C), in float64: log_softmax."""
    from scipy import special

    array = np.asarray(output, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0 or np.isnan(array).any() or (array == np.inf).any():
        raise BadAnswer("the target's logits are none", value=array.shape, remedy="give (n, C) without NaN or +inf")
    return of_log_probs(special.log_softmax(array, axis=1), records)


def labels_alone(output: ArrayLike, records: int) -> IntArray:
    """Check labels, shape (n,), integers from 0."""
    array = np.asarray(output)
    if array.dtype.kind not in "iu" or array.ndim != 1 or (array.size and int(array.min()) < 0):
        raise BadAnswer("the target's labels are none", value=array.dtype, remedy="give (n,) integers from 0")
    _one_each(array, records)
    return array.astype(np.int64)


def of_tokens(output: ArrayLike) -> FloatArray:
    """Check one text's token log-probabilities, shape (T,)."""
    try:
        return check_token_log_probs(np.asarray(output, dtype=np.float64))
    except AttackInputError as error:
        raise BadAnswer("the target's tokens are unfit", value=error, remedy="look into the target") from error


def _one_each(array: FloatArray, records: int) -> FloatArray:
    if len(array) != records:
        raise BadAnswer("the target answered another number", value=f"{len(array)} for {records}", remedy="one each")
    return array
