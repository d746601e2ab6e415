"""Reference models: which records each was trained with, and statistics over them in little memory.

A matrix has one row per reference model and one column per record. It may be memory-mapped: columns are taken in
blocks, so that nothing as large as the matrix is ever made.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import NotFiniteScores, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import finite_matrix

BoolArray = NDArray[np.bool_]

BLOCK_VALUES = 1 << 15
"""Values of the matrix that are worked on at once: 256 KiB as float64."""


def check_references(
    target: ArrayLike, references: ArrayLike, inclusion: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.floating], BoolArray]:
    """Give back a target's signals, the references' and who was trained with what, checked.

    Args:
        target: shape (n,), finite.
        references: shape (R, n), finite; left as they are (float32 or float64, memory-mapped or not).
        inclusion: shape (R, n), booleans: whether reference r was trained with record i.

    Raises:
        ShapeMismatch: shapes that do not belong together, or an inclusion that is not boolean.
        TooFewRecords: no reference or no record.
        NotFiniteScores: NaN or an infinity.
    """
    matrix = finite_matrix(references, "reference signals")
    own = np.asarray(target)
    if own.shape != matrix.shape[1:]:
        raise ShapeMismatch(
            "target and references disagree", value=(own.shape, matrix.shape), remedy="pass (n,) and (references, n)"
        )
    if own.dtype.kind not in "biuf":
        raise NotFiniteScores("target signals are no real numbers", value=own.dtype, remedy="pass floats")
    if own.dtype not in (np.float32, np.float64):
        own = own.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(own))
    if bad.size:
        raise NotFiniteScores(
            f"target signals are not finite, first at index {bad[0]}",
            value=own[bad[0]],
            remedy="use the signals of this package, which keep a probability of zero finite",
        )
    return own, matrix, check_inclusion(inclusion, matrix.shape)


def check_inclusion(inclusion: ArrayLike, shape: tuple[int, ...]) -> BoolArray:
    """Give back an inclusion matrix of this shape, or raise ShapeMismatch."""
    mask = np.asarray(inclusion)
    if mask.shape != shape or mask.dtype != np.bool_:
        raise ShapeMismatch(
            "inclusion must be booleans of the references' shape",
            value=(mask.shape, str(mask.dtype), shape),
            remedy="pass True where a reference was trained with a record",
        )
    return mask


def covered(inclusion: ArrayLike, fewest_in: int = 1, fewest_out: int = 1) -> BoolArray:
    """Which records enough references hold, and enough do not: those that LiRA and RMIA can score.

    Under fair coins a record is in all of R references, or in none, with probability 2^(1−R): of 50,000 records and
    16 references one or two must be left out, knowingly.

    Args:
        inclusion: shape (R, n), booleans.
        fewest_in: references that must hold a record; 0 for the offline modes, 2 for LiRA's `per_example`.
        fewest_out: references that must not hold it; 2 for LiRA's `per_example`.

    Returns:
        Shape (n,), booleans.

    Raises:
        ShapeMismatch: not a boolean matrix.
    """
    mask = np.asarray(inclusion)
    if mask.ndim != 2:
        raise ShapeMismatch("inclusion must be a matrix", value=mask.shape, remedy="pass (references, records)")
    inside = check_inclusion(mask, mask.shape).sum(axis=0)
    result: BoolArray = (inside >= fewest_in) & (mask.shape[0] - inside >= fewest_out)
    return result


def require_counts(counts: NDArray[np.integer], fewest: int, side: str, references: int, remedy: str) -> None:
    """Raise TooFewRecords, naming the first record that fewer than `fewest` references hold in (or out)."""
    short = np.flatnonzero(counts < fewest)
    if short.size:
        first = int(short[0])
        raise TooFewRecords(
            f"{short.size} records are {side} too few of {references} references, first record {first}; "
            f"{fewest} are needed",
            value=int(counts[first]),
            remedy=remedy,
        )


def blocks(references: int, records: int) -> Iterator[slice]:
    """Slices of columns that together cover all records."""
    width = max(1, BLOCK_VALUES // references)
    for start in range(0, records, width):
        yield slice(start, min(start + width, records))
