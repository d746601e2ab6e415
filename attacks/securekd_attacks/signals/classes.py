"""Signals of one record under a classifier, from its log-probabilities of all classes and the true label."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from securekd_attacks.errors import BadLabels, BadProbabilities, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import LOG_ZERO, FloatArray, IntArray

ROW_SUM_TOLERANCE = 1e-4
"""How far the probabilities of a row may be from one: ample for float32, too little for float16."""


def cross_entropy_loss(log_probs: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Loss of the true label, −log p_y. Members tend to be low (Yeom et al. 2018).

    Args:
        log_probs: shape (n, C), natural logarithms, C at least 2; −∞ allowed.
        labels: shape (n,), integers in [0, C).

    Returns:
        Shape (n,), in nats, in [0, 744.44] up to the rounding of the input.

    Raises:
        BadProbabilities: NaN, +∞, or a row that does not sum to one.
        BadLabels: labels that are not integers in [0, C).
        ShapeMismatch: shapes that do not belong together.
        TooFewRecords: no record at all.
    """
    checked = check_log_probs(log_probs)
    loss: FloatArray = -_of_label(_cut(checked), check_labels(labels, checked))
    return loss


def entropy(log_probs: ArrayLike) -> FloatArray:
    """Shannon entropy of the prediction, −Σ p log p. Members tend to be low (Song and Mittal 2021, prediction entropy).

    Args:
        log_probs: shape (n, C), as for `cross_entropy_loss`. No label is needed.

    Returns:
        Shape (n,), in nats, in [0, log C] up to the rounding of the input.

    Raises:
        BadProbabilities: NaN, +∞, or a row that does not sum to one.
        ShapeMismatch: not a matrix with two columns or more.
        TooFewRecords: no record at all.
    """
    checked = check_log_probs(log_probs)
    spread: FloatArray = -np.sum(np.exp(checked) * _cut(checked), axis=1)
    return spread


def modified_entropy(log_probs: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Entropy that knows the label: −(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i).

    Zero where the model is sure and right, large where it is sure and wrong; plain entropy is zero in both cases.
    Members tend to be low (Song and Mittal 2021, "Mentr").

    Args:
        log_probs: shape (n, C), as for `cross_entropy_loss`.
        labels: shape (n,), integers in [0, C).

    Returns:
        Shape (n,), in nats, in [0, 1488.9] up to the rounding of the input.

    Raises:
        BadProbabilities, BadLabels, ShapeMismatch, TooFewRecords: as for `cross_entropy_loss`.
    """
    checked = check_log_probs(log_probs)
    known = check_labels(labels, checked)
    log_rest = _log_complement(checked)
    own = np.exp(_of_label(log_rest, known)) * _of_label(_cut(checked), known)
    weighted = np.exp(checked) * _cut(log_rest)
    rest: FloatArray = weighted.sum(axis=1, where=_other_classes(known, checked.shape[1]))
    return -own - rest


def scaled_logit(log_probs: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Logit of the true label's probability, log p_y − log Σ_{i≠y} p_i. Members tend to be *high*.

    The sum over the other classes replaces 1 − p_y, which would lose all digits where p_y is near one
    (Carlini et al. 2022, the stable form of their logit scaling).

    Args:
        log_probs: shape (n, C), as for `cross_entropy_loss`.
        labels: shape (n,), integers in [0, C).

    Returns:
        Shape (n,), in [−744.44, 744.44] up to the rounding of the input.

    Raises:
        BadProbabilities, BadLabels, ShapeMismatch, TooFewRecords: as for `cross_entropy_loss`.
    """
    checked = check_log_probs(log_probs)
    known = check_labels(labels, checked)
    others = np.where(_other_classes(known, checked.shape[1]), checked, -np.inf)
    return _of_label(_cut(checked), known) - _cut(_log_sum(others))


def check_log_probs(log_probs: ArrayLike) -> FloatArray:
    """Give back log-probabilities as float64 of shape (n, C), n ≥ 1, C ≥ 2, whose rows are distributions.

    Raises:
        ShapeMismatch: not a matrix with two columns or more.
        TooFewRecords: no row.
        BadProbabilities: NaN or +∞, or a row whose probabilities miss one by more than `ROW_SUM_TOLERANCE`.
    """
    array = np.asarray(log_probs)
    if array.dtype.kind != "f":
        raise BadProbabilities("log-probabilities must be floats", value=array.dtype, remedy="pass float32 or float64")
    if array.ndim != 2 or array.shape[1] < 2:
        raise ShapeMismatch(
            "log-probabilities must have shape (records, classes) with two classes or more",
            value=array.shape,
            remedy="pass one row per record",
        )
    if array.shape[0] == 0:
        raise TooFewRecords("no records", value=array.shape, remedy="pass at least one row")
    array = array.astype(np.float64)
    _refuse_bad_rows(array)
    return array


def check_labels(labels: ArrayLike, log_probs: FloatArray) -> IntArray:
    """Give back labels as int64 of shape (n,), each a column of `log_probs`.

    Raises:
        BadLabels: not integers, or outside [0, C).
        ShapeMismatch: not one per row.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise BadLabels("labels must be integers", value=array.dtype, remedy="pass class indices")
    if array.shape != log_probs.shape[:1]:
        raise ShapeMismatch(
            "labels and log-probabilities disagree", value=(array.shape, log_probs.shape), remedy="pass one per row"
        )
    outside = np.flatnonzero((array < 0) | (array >= log_probs.shape[1]))
    if outside.size:
        raise BadLabels(
            f"label out of range at index {outside[0]}",
            value=int(array[outside[0]]),
            remedy=f"use classes 0 to {log_probs.shape[1] - 1}",
        )
    return array.astype(np.int64)


def _refuse_bad_rows(array: FloatArray) -> None:
    bad = np.flatnonzero(np.any(np.isnan(array) | (array == np.inf), axis=1))
    if bad.size:
        raise BadProbabilities(
            f"log-probabilities are NaN or +inf in {bad.size} rows, first in row {bad[0]}",
            value=array[bad[0]][~(array[bad[0]] < np.inf)][0],
            remedy="find out why the model gives them; -inf, a probability of zero, is allowed",
        )
    with np.errstate(over="ignore"):
        sums = np.exp(array).sum(axis=1)
    off = np.flatnonzero(~(np.abs(sums - 1.0) <= ROW_SUM_TOLERANCE))
    if off.size:
        raise BadProbabilities(
            f"probabilities do not sum to one in {off.size} rows, first in row {off[0]}",
            value=float(sums[off[0]]),
            remedy="pass log_softmax of the logits, computed in float32 or better",
        )


def _cut(logarithms: FloatArray) -> FloatArray:
    return np.maximum(logarithms, LOG_ZERO)


def _of_label(matrix: FloatArray, labels: IntArray) -> FloatArray:
    return np.take_along_axis(matrix, labels[:, None], axis=1)[:, 0]


def _other_classes(labels: IntArray, classes: int) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.arange(classes)[None, :] != labels[:, None]
    return mask


def _log_sum(logarithms: FloatArray) -> FloatArray:
    """Row-wise log Σ exp, −∞ for a row of −∞."""
    result: FloatArray = special.logsumexp(logarithms, axis=1)
    return result


def _log_complement(log_probs: FloatArray) -> FloatArray:
    """log(1 − p) for every entry. The largest of a row, alone able to be near one, takes the sum of the others."""
    top = log_probs.argmax(axis=1)
    others = np.where(_other_classes(top, log_probs.shape[1]), log_probs, -np.inf)
    result: FloatArray = np.log1p(-np.exp(np.minimum(others, 0.0)))
    result[np.arange(len(top)), top] = _log_sum(others)
    return result
