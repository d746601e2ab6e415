"""From whatever a target returns to `Answers`: each kind of output is told by its content, all else is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from securekd_attacks.errors import AttackInputError
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.signals.classes import ROW_SUM_TOLERANCE
from securekd_attacks.signals.tokens import check_token_log_probs
from securekd_attacks.targets import rounding
from securekd_attacks.targets.errors import BadAnswer
from securekd_attacks.targets.records import Answers

OUTPUT_KINDS = ("log_probs", "probs", "logits")

NEGLIGIBLE = 1e-6
"""How far below zero a probability may be for the error of float32; it is then taken for zero."""

MOST_NORMALISED = 0.01
"""How far from one a rounded row may sum, and so about how far dividing by the sum moves any logarithm.

It is one step of the coarsest rounding that is read. Digits alone would explain much more where there are many
classes: behind 999 zeros of two decimals up to 4.995 may be missing, and what is shown would become certain."""

_NAMES = {"log_probs": "log-probabilities", "probs": "probabilities", "logits": "logits"}


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
        raise BadAnswer("the target's output is no array", value=_said(output), remedy=_alone(output)) from error
    if array.dtype.kind in "iu":
        return Answers(predicted=labels_alone(array, records))
    if array.dtype.kind != "f" or array.ndim != 2:
        shown = "" if array.ndim == 0 else f": {array.dtype}, shape {array.shape}"
        raise BadAnswer(
            "the target's output is no matrix of floats and no vector of integers",
            value=f"{_said(output)}{shown}",
            remedy=_alone(output),
        )
    found = distributions(_kind_of(array), array, records)
    return Answers(log_probs=found.log_probs, rounding=found.rounding)


def _kind_of(array: NDArray[np.floating]) -> str:
    below, above = array < -NEGLIGIBLE, array > ROW_SUM_TOLERANCE
    if below.any() and above.any():
        row = int(np.argmax(below.any(axis=1)))
        raise BadAnswer(
            "the target's output has values below zero and above, and is neither probabilities nor their logarithms",
            value=f"{array[row].min():.6g}",
            remedy="return probabilities, or log_softmax of the logits",
            row=row,
        )
    return "log_probs" if below.any() else "probs"


def _said(output: object) -> str:
    """What kind of thing somebody returned, in a few words."""
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} with {', '.join(str(key)[:20] for key in list(output)[:5])}"
    if isinstance(output, tuple):
        return f"a {kind} of {', '.join(type(each).__name__ for each in output[:5])}"
    return f"a {kind} with logits" if hasattr(output, "logits") else f"a {kind}"


def _alone(output: object) -> str:
    if hasattr(output, "logits") or (isinstance(output, Mapping) and "logits" in output):
        return "return log_softmax of its logits alone, as a numpy array (n, C)"
    if hasattr(output, "detach"):
        return "return it as a numpy array, with .detach().float().cpu().numpy()"
    return "return one numpy array alone: log-probabilities or probabilities (n, C), or labels (n,)"


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
    array = _matrix("log_probs", output, records)
    with np.errstate(over="ignore"):
        sums = np.exp(array).sum(axis=1)
        steps = _steps(array, sums, np.exp, "pass log_softmax of the logits, computed in float32 or better")
    if steps.any():
        array -= np.log(sums)[:, None]
    return Distributions(array, steps)


def of_probabilities(output: ArrayLike, records: int) -> Distributions:
    """Take the logarithm of probabilities, shape (n, C); each row is first divided by its sum, which must be near 1."""
    array = _matrix("probs", output, records)
    below = np.flatnonzero((array < -NEGLIGIBLE).any(axis=1))
    if below.size:
        raise BadAnswer(
            f"the target's probabilities are below zero in {below.size} rows, first",
            value=f"{array[below[0]].min():.6g}",
            remedy="give softmax of the logits, or call logarithms log_probs",
            row=int(below[0]),
        )
    array = np.maximum(array, 0.0)
    sums = array.sum(axis=1)
    steps = _steps(array, sums, lambda chances: chances, "give every class, or log_softmax")
    with np.errstate(divide="ignore"):
        return Distributions(np.log(array / sums[:, None]), steps)


def of_logits(output: ArrayLike, records: int) -> FloatArray:
    """Normalise logits, shape (n, C), in float64: log_softmax."""
    array = _matrix("logits", output, records)
    impossible = np.flatnonzero((array == -np.inf).all(axis=1))
    if impossible.size:
        row = int(impossible[0])
        raise BadAnswer("the target's logits are all -inf", value="-inf", remedy="look into the target", row=row)
    normalised: FloatArray = special.log_softmax(array, axis=1)
    return normalised


def labels_alone(output: ArrayLike, records: int) -> IntArray:
    """Check labels, shape (n,), integers from 0."""
    array = np.asarray(output)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise BadAnswer(
            "the target's labels are none", value=f"{array.dtype}, shape {array.shape}", remedy="give (n,) integers"
        )
    _one_each(array, records)
    odd = np.flatnonzero((array < 0) | (array > np.iinfo(np.int64).max))
    if odd.size:
        row = int(odd[0])
        raise BadAnswer("a label out of range", value=int(array[row]), remedy="give integers from 0", row=row)
    return array.astype(np.int64)


def of_tokens(output: ArrayLike, row: int | None = None) -> FloatArray:
    """Check one text's token log-probabilities, shape (T,); it is the batch's text `row`."""
    try:
        return check_token_log_probs(np.asarray(output, dtype=np.float64))
    except AttackInputError as error:
        raise BadAnswer("the target's tokens are unfit", value=error, remedy="look into the target", row=row) from error


def _matrix(kind: str, output: ArrayLike, records: int) -> FloatArray:
    """Numbers of one row for each record, two classes or more, without NaN and +inf; a new array."""
    array, name = np.asarray(output), f"the target's {_NAMES[kind]}"
    if array.dtype.kind not in "iuf":
        raise BadAnswer(f"{name} are no numbers", value=array.dtype, remedy="give floats")
    if array.ndim != 2 or array.shape[1] < 2:
        raise BadAnswer(
            f"{name} must be (n, C), of two classes or more", value=f"shape {array.shape}", remedy="give every class"
        )
    _one_each(array, records)
    if not records:
        raise BadAnswer("no records", value=0, remedy="give at least one")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~(array < np.inf).all(axis=1))
    if bad.size:
        row = int(bad[0])
        raise BadAnswer(
            f"{name} are NaN or +inf in {bad.size} rows, first",
            value=array[row][~(array[row] < np.inf)][0],
            remedy="find out why the model gives them",
            row=row,
        )
    return array


def _steps(
    values: FloatArray, sums: FloatArray, chances: Callable[[FloatArray], FloatArray], remedy: str
) -> FloatArray:
    """For each row the step of the rounding that explains why it does not sum to one, 0 where it does.

    The digits of all rows together say how they were rounded; where they show nothing, each row's own do.

    Raises:
        BadAnswer: a row whose digits do not explain it, or that is too far from one.
    """
    steps = np.zeros(len(sums))
    off = np.flatnonzero(~(np.abs(sums - 1.0) <= ROW_SUM_TOLERANCE))
    if not off.size:
        return steps
    seen = rounding.seen_in(values)
    near = off[np.abs(sums[off] - 1.0) <= MOST_NORMALISED + 1e-9]
    if not seen:
        steps[near] = rounding.steps_by_row(values[near], chances)
    for grid in reversed(seen):  # the coarsest that explains a row stays
        steps[near] = np.where(grid.explains(values[near], chances), grid.step, steps[near])
    bad = off[steps[off] == 0.0]
    if bad.size:
        row = int(bad[0])
        why, mend = _unexplained(next(iter(seen), None), values[row : row + 1], float(sums[row]), chances)
        raise BadAnswer(
            f"the target's probabilities do not sum to one in {bad.size} rows, first",
            value=f"{sums[row]:.6g}{why}",
            remedy=mend or remedy,
            row=row,
        )
    return steps


def _unexplained(
    seen: rounding.Rounding | None, row: FloatArray, total: float, chances: Callable[[FloatArray], FloatArray]
) -> tuple[str, str]:
    """Why a row is not accepted for its rounding, and what to do, both empty where nothing is known of it."""
    if abs(total - 100.0) <= 1.0:
        return "", "divide percentages by 100"
    if abs(total - 255.0) <= 2.0:
        return "", "divide bytes by 255"
    shown = next(iter(rounding.seen_in(row)), None) if seen is None else seen
    if shown is None:
        return "", ""
    if shown.explains(row, chances)[0] and total > 0.0:
        said = (
            f", which is further from one than the {MOST_NORMALISED:.0%} that is put down to rounding to {shown.name}"
        )
        return said, "give every class, with more digits"
    if shown.explains(row, chances, up=1.0)[0] and total > 0.0:
        return f", cut off and not rounded to {shown.name}", "round to the nearest, or give more digits"
    return f", which rounding to {shown.name} does not explain", ""


def _one_each(array: NDArray[np.generic], records: int) -> None:
    if len(array) != records:
        raise BadAnswer("the target answered another number", value=f"{len(array)} for {records}", remedy="one each")
