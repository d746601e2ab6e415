"""The likelihood-ratio attack (Carlini et al. 2022): a record's signal against reference models with and without it.

Signals are scaled logits (`signals.scaled_logit`), or anything else of about normal distribution.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import BadSetting
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.references import BoolArray, blocks, check_references, require_counts

Variance = Literal["per_example", "pooled", "residual"]
"""Where the spread of a record's signal comes from.

`per_example`: its own references alone; right with many of them (64 or more), noise with few.
`pooled`: all values of all records on one side, as the reference implementation's `fix_variance`; since records differ
in their means, it is larger than the spread of any one of them.
`residual`: the deviations of all values on one side from their own record's mean, with the degrees of freedom that the
means cost; the right one with few references.
"""

Mode = Literal["online", "offline"]
"""`online`: references with the record and without. `offline`: those without it alone."""


@dataclass(frozen=True, eq=False)
class Side:
    """What reference models on one side (with the record, or without) say of each record.

    Attributes:
        mean: shape (n,).
        deviation: shape (n,), positive: the standard deviation that scores are computed with.
        count: shape (n,), how many references stand behind each.
    """

    mean: FloatArray
    deviation: FloatArray
    count: IntArray

    def with_deviation(self, deviation: float) -> "Side":
        """The same means, with a spread that all records share; cut off below as in `scores`."""
        return Side(self.mean, _at_resolution(np.full_like(self.mean, deviation), self.mean), self.count)


def scores(
    target: ArrayLike, references: ArrayLike, inclusion: ArrayLike, variance: Variance, mode: Mode
) -> FloatArray:
    """LiRA scores, higher = more likely a member.

    Online, the score is log N(x; μ_in, σ_in) − log N(x; μ_out, σ_out) (their algorithm 1): by Neyman and Pearson the
    best test of one normal distribution against the other, also where the variances differ and the ratio falls again
    as the signal grows. Offline, it is (x − μ_out)/σ_out, which orders records as their one-sided p-value does and
    does not round to 1.

    Args:
        target: shape (n,), the target's signals.
        references: shape (R, n), each reference model's signals of the same records; may be memory-mapped.
        inclusion: shape (R, n), booleans: whether reference r was trained with record i.
        variance: `per_example`, `pooled` or `residual`, see `Variance`.
        mode: `online` or `offline`, see `Mode`. Offline, references that hold a record are left out for it.

    Returns:
        Shape (n,), finite. Spreads are cut off below at the resolution of float32, in which signals are stored.

    Raises:
        ShapeMismatch, NotFiniteScores: the input is unfit.
        TooFewRecords: a record has too few references on a side: two for a variance of its own, else one.
        BadSetting: an unknown variance or mode.
    """
    if mode not in ("online", "offline"):
        raise BadSetting("unknown mode", value=mode, remedy="choose online or offline")
    own, matrix, included = check_references(target, references, inclusion)
    outside = side(matrix, included, variance, inside=False)
    if mode == "offline":
        return offline(own, outside)
    return online(own, side(matrix, included, variance, inside=True), outside)


def offline(target: FloatArray, outside: Side) -> FloatArray:
    """The score of `scores` without IN references: how many deviations a record lies above its OUT mean."""
    return (target - outside.mean) / outside.deviation


def online(target: FloatArray, inside: Side, outside: Side) -> FloatArray:
    """The score of `scores` with both sides: the logarithm of the likelihood ratio."""
    ratio = offline(target, outside) ** 2
    ratio -= offline(target, inside) ** 2
    ratio /= 2.0
    ratio += np.log(outside.deviation / inside.deviation)
    return ratio


def side(references: NDArray[np.floating], inclusion: BoolArray, variance: Variance, *, inside: bool) -> Side:
    """Mean and spread of each record over the references that hold it (`inside`) or do not. Input is taken as checked.

    Raises:
        TooFewRecords: a record has too few references on this side.
        BadSetting: an unknown variance.
    """
    if variance not in ("per_example", "pooled", "residual"):
        raise BadSetting("unknown variance", value=variance, remedy="choose per_example, pooled or residual")
    models, records = references.shape
    mean, squares, count = np.empty(records), np.empty(records), np.empty(records, dtype=np.int64)
    for part in blocks(models, records):
        chosen = inclusion[:, part] if inside else ~inclusion[:, part]
        count[part] = chosen.sum(axis=0)
        values = references[:, part].astype(np.float64)
        mean[part] = np.einsum("rn,rn->n", values, chosen) / np.maximum(count[part], 1)
        values -= mean[part]
        squares[part] = np.einsum("rn,rn,rn->n", values, values, chosen)
    require_counts(
        count,
        2 if variance == "per_example" else 1,
        "in" if inside else "out of",
        models,
        "keep the records that `references.covered` names, or train more references",
    )
    return Side(mean=mean, deviation=_deviation(mean, squares, count, variance), count=count)


def _deviation(mean: FloatArray, squares: FloatArray, count: IntArray, variance: Variance) -> FloatArray:
    if variance == "per_example":
        spread = np.sqrt(squares / (count - 1))
    elif variance == "residual":
        # With one reference each there is nothing left to see a spread in; the floor below then stands for it.
        spread = np.full_like(mean, np.sqrt(squares.sum() / max(1, int((count - 1).sum()))))
    else:
        total = count.sum()
        grand = float((count * mean).sum() / total)
        spread = np.full_like(mean, np.sqrt((squares + count * (mean - grand) ** 2).sum() / total))
    return _at_resolution(spread, mean)


def _at_resolution(spread: FloatArray, mean: FloatArray) -> FloatArray:
    result: FloatArray = np.maximum(spread, np.finfo(np.float32).eps * (1.0 + np.abs(mean)))
    return result
