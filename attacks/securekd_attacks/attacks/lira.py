"""The likelihood-ratio attack (Carlini et al. 2022): a record's signal against reference models with and without it.

Signals are scaled logits (`signals.scaled_logit`), or anything else of about normal distribution.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import BadSetting
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.references.inclusion import BoolArray, blocks, check_references, require_counts

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
    """

    mean: FloatArray
    deviation: FloatArray


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
    spread_out = spread(matrix, included, variance, inside=False)
    spread_in = spread(matrix, included, variance, inside=True) if mode == "online" else None
    result = np.empty(own.size)
    for part in blocks(*matrix.shape):
        block, held, at = matrix[:, part], included[:, part], own[part].astype(np.float64)
        outside = _side(block, held, spread_out, inside=False)
        if mode == "offline":
            result[part] = offline(at, outside)
        else:
            result[part] = online(at, _side(block, held, spread_in, inside=True), outside)
    return result


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


def side(references: NDArray[np.floating], inclusion: BoolArray, shared: float | None, *, inside: bool) -> Side:
    """Mean and spread of each record over the references that hold it (`inside`) or do not. Input is taken as checked.

    Args:
        references: shape (R, n).
        inclusion: shape (R, n).
        shared: the standard deviation of all records, as `spread` finds it; None for one of each record's own.
        inside: which side.

    Raises:
        TooFewRecords: a record has too few references on this side.
    """
    _require(inclusion, 2 if shared is None else 1, inside=inside)
    mean, deviation = np.empty(references.shape[1]), np.empty(references.shape[1])
    for part in blocks(*references.shape):
        one = _side(references[:, part], inclusion[:, part], shared, inside=inside)
        mean[part], deviation[part] = one.mean, one.deviation
    return Side(mean=mean, deviation=deviation)


def spread(references: NDArray[np.floating], inclusion: BoolArray, variance: Variance, *, inside: bool) -> float | None:
    """The standard deviation that all records share on one side; None per example. Input is taken as checked.

    Raises:
        TooFewRecords: a record has too few references on this side.
        BadSetting: an unknown variance.
    """
    if variance not in ("per_example", "pooled", "residual"):
        raise BadSetting("unknown variance", value=variance, remedy="choose per_example, pooled or residual")
    _require(inclusion, 2 if variance == "per_example" else 1, inside=inside)
    if variance == "per_example":
        return None
    total, freedom, centre, within, whole = 0, 0, 0.0, 0.0, 0.0
    for part in blocks(*references.shape):
        count, mean, squares = _moments(references[:, part], inclusion[:, part], inside=inside)
        size, here = int(count.sum()), float((count * mean).sum() / count.sum())
        # Sums of squares about a mean that moves from block to block (Chan, Golub and LeVeque 1983).
        whole += float((squares + count * (mean - here) ** 2).sum()) + (here - centre) ** 2 * total * size / (
            total + size
        )
        centre += (here - centre) * size / (total + size)
        within += float(squares.sum())
        freedom += int((count - 1).sum())
        total += size
    # With one reference each there is nothing to see a residual in; the resolution of float32 then stands for it.
    return float(np.sqrt(whole / total if variance == "pooled" else within / max(1, freedom)))


def _require(inclusion: BoolArray, fewest: int, *, inside: bool) -> None:
    models = len(inclusion)
    held = inclusion.sum(axis=0, dtype=np.int32)
    require_counts(
        held if inside else models - held,
        fewest,
        "in" if inside else "out of",
        models,
        "keep the records that `references.covered` names, or train more references",
    )


def _side(block: NDArray[np.floating], inclusion: BoolArray, shared: float | None, *, inside: bool) -> Side:
    if shared is None:
        count, mean, squares = _moments(block, inclusion, inside=inside)
        deviation = np.sqrt(squares / (count - 1))
    else:
        chosen = inclusion if inside else ~inclusion
        mean = np.einsum("rn,rn->n", block.astype(np.float64), chosen) / chosen.sum(axis=0)
        deviation = np.full_like(mean, shared)
    return Side(mean, np.maximum(deviation, np.finfo(np.float32).eps * (1.0 + np.abs(mean))))


def _moments(
    block: NDArray[np.floating], inclusion: BoolArray, *, inside: bool
) -> tuple[IntArray, FloatArray, FloatArray]:
    """How many values each record has on one side, their mean, and the sum of squares about it."""
    chosen = inclusion if inside else ~inclusion
    count = chosen.sum(axis=0)
    values = block.astype(np.float64)
    mean = np.einsum("rn,rn->n", values, chosen) / count
    values -= mean
    return count, mean, np.einsum("rn,rn,rn->n", values, values, chosen)
