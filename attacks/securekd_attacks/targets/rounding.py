"""The rounding that numbers show by themselves, and what it explains: rows of probabilities that do not sum to one.

Whoever prints four decimals, or answers in float16, gives rows whose sums miss one by more than float32 would. The
numbers tell: all of them lie on a grid. A row is then as good as its grid is fine, if some distribution rounds to it;
what no distribution rounds to was wrong before it was rounded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.inputs import FloatArray

FEWEST_DIGITS, MOST_DIGITS = 2, 7
"""Fewer digits tell little of a probability; with more, `ROW_SUM_TOLERANCE` is ample."""

AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Rounding:
    """A grid on which rounded numbers lie.

    Attributes:
        name: in words, such as `4 decimals`.
        step: between neighbours just below one.
        spacing: from the numbers' magnitudes to the distance between neighbours there.
    """

    name: str
    step: float
    spacing: Callable[[FloatArray], FloatArray]

    def explains(
        self, rows: FloatArray, chances: Callable[[FloatArray], FloatArray], up: float = 0.5
    ) -> NDArray[np.bool_]:
        """For each row whether some distribution rounds to it, shape (n,).

        Args:
            rows: shape (n, C), on the grid.
            chances: from these numbers to probabilities, increasing.
            up: the share of a step that numbers may have lost: a half where they were rounded, one where cut off.
        """
        spacing = self.spacing(np.abs(rows))
        least = np.maximum(chances(rows - (1.0 - up) * spacing), 0.0).sum(axis=1)
        most = np.minimum(chances(rows + up * spacing), 1.0).sum(axis=1)
        slack = 2.0 * _roundoff(rows) + 1e-12
        explained: NDArray[np.bool_] = (least <= 1.0 + slack) & (most >= 1.0 - slack)
        return explained


def seen_in(values: FloatArray) -> tuple[Rounding, ...]:
    """The roundings that all of the values show (infinities aside), the coarsest first, on the average.

    Two decimals, say, are two significant digits as well: which of them it was, no digits tell.
    """
    roundoff = _roundoff(values)
    grids = [each for each in _GRIDS if _lies_on(each, values, roundoff)]
    return tuple(sorted(grids, key=lambda each: -sum(float(each.spacing(part).sum()) for part in _parts(values))))


def steps_by_row(rows: FloatArray, chances: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Each row judged alone: the step of the coarsest rounding that it shows and that explains it; 0 for none.

    Args:
        rows: shape (n, C).
        chances: as in `Rounding.explains`.
    """
    steps = np.zeros(len(rows))
    at_once = max(1, AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        for grid in sorted(_GRIDS, key=lambda each: each.step):
            fits = np.flatnonzero(_rows_on(grid, part))
            fits = fits[grid.explains(part[fits], chances)] if fits.size else fits
            steps[start + fits] = grid.step
    return steps


def _rows_on(grid: Rounding, rows: FloatArray) -> NDArray[np.bool_]:
    sizes = np.abs(np.where(np.isfinite(rows), rows, 0.0))
    steps = sizes / grid.spacing(sizes)
    with np.errstate(over="ignore"):
        narrow = [(sizes.astype(kind) == sizes).all(axis=1) for kind in (np.float16, np.float32)]
    roundoff = np.select(narrow, [2.0**-11, 2.0**-24], 2.0**-53)[:, None]
    on: NDArray[np.bool_] = np.abs(steps - np.rint(steps)) <= (roundoff + 2.0**-51) * steps
    whole: NDArray[np.bool_] = np.all(on, axis=1)
    return whole


def _lies_on(grid: Rounding, values: FloatArray, roundoff: float) -> bool:
    for part in _parts(values):
        steps = part / grid.spacing(part)
        if (np.abs(steps - np.rint(steps)) > (roundoff + 2.0**-51) * steps).any():
            return False
    return True


def _roundoff(values: FloatArray) -> float:
    """The relative error with which the narrowest type that holds the values exactly holds any number."""
    with np.errstate(over="ignore"):
        for kind in (np.float16, np.float32):
            if all((part.astype(kind) == part).all() for part in _parts(values)):
                return float(np.finfo(kind).eps) / 2.0
    return float(np.finfo(np.float64).eps) / 2.0


def _parts(values: FloatArray) -> Iterator[FloatArray]:
    """Magnitudes of the finite values, some at a time: most grids are left by the first ones."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, AT_ONCE):
        part = np.abs(flat[start : start + AT_ONCE])
        yield part[np.isfinite(part)]


def _decimals(digits: int) -> Rounding:
    return Rounding(f"{digits} decimals", 10.0**-digits, lambda sizes: np.full(sizes.shape, 10.0**-digits))


def _parts_of(whole: int) -> Rounding:
    """Bytes: what quantised models answer in."""
    return Rounding(f"multiples of 1/{whole}", 1.0 / whole, lambda sizes: np.full(sizes.shape, 1.0 / whole))


def _significant(digits: int) -> Rounding:
    def spacing(sizes: FloatArray) -> FloatArray:
        told = (sizes > 0.0) & (sizes < np.inf)
        above = np.floor(np.log10(np.where(told, sizes, 1.0))) + 1.0
        return np.where(told, 10.0 ** (above - digits), _NOTHING)

    return Rounding(f"{digits} significant digits", 10.0**-digits, spacing)


def _binary(name: str, digits: int, least: float) -> Rounding:
    def spacing(sizes: FloatArray) -> FloatArray:
        told = (sizes > 0.0) & (sizes < np.inf)
        _, exponents = np.frexp(np.where(told, sizes, 1.0))
        return np.where(told, np.maximum(2.0 ** (exponents - float(digits)), least), _NOTHING)

    return Rounding(name, 2.0**-digits, spacing)


_NOTHING = 1e-300
"""How far rounding moves what has no digits to tell it: a zero, an infinity."""

_GRIDS = (
    *(kind(digits) for digits in range(FEWEST_DIGITS, MOST_DIGITS + 1) for kind in (_decimals, _significant)),
    _parts_of(255),
    _parts_of(256),
    _binary("bfloat16", 8, 2.0**-133),
    _binary("float16", 11, 2.0**-24),
)
