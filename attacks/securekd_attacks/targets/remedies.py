"""What would mend an array of labels or flags: a remedy is named only after it was tried on the array itself."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Fits = Callable[[Array], bool]

_MEMBER_WORDS = frozenset({"member", "members", "in", "train", "training", "true", "yes", "t", "y", "1"})


def of_labels(labels: Array, classes: int, fits: Fits) -> str | None:
    """What to store for class indices, or None where nothing simple would do."""
    mends: tuple[tuple[str, Callable[[], Array]], ...] = (
        ("labels.astype(int)", lambda: _whole(labels)),
        ("labels[:, 0].astype(int)", lambda: _whole(_only_column(labels))),
        ("labels.argmax(axis=1)", lambda: _one_hot(labels, classes).argmax(axis=1)),
        ("labels.astype(int) - 1", lambda: _whole(labels) - 1),
        ("labels[:, 0].astype(int) - 1", lambda: _whole(_only_column(labels)) - 1),
        ("(labels.astype(int) > 0).astype(int)", lambda: _signs(_whole(labels)).astype(np.int64)),
    )
    return _first(mends, fits)


def of_flags(name: str, flags: Array, fits: Fits) -> str | None:
    """What to store for booleans, or None where nothing simple would do."""
    mends: tuple[tuple[str, Callable[[], Array]], ...] = (
        (f"{name}.astype(int)", lambda: _whole(flags)),
        (f"{name} > 0", lambda: _signs(flags)),
        *((f"{name} == {word!r}", lambda word=word: flags == word) for word in _words(flags)),
    )
    return _first(mends, fits)


def _first(mends: tuple[tuple[str, Callable[[], Array]], ...], fits: Fits) -> str | None:
    for said, mend in mends:
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # it does not apply
            if fits(mend()):
                return f"store {said}"
    return None


def _whole(values: Array) -> Array:
    if values.dtype.kind not in "biufUT":
        raise TypeError
    if values.dtype.kind == "f" and not bool((np.isfinite(values) & (values == np.rint(values))).all()):
        raise ValueError
    return values.astype(np.int64)


def _only_column(values: Array) -> Array:
    if values.ndim != 2 or values.shape[1] != 1:
        raise ValueError
    column: Array = values[:, 0]
    return column


def _one_hot(values: Array, classes: int) -> Array:
    if values.ndim != 2 or values.shape[1] != classes or values.dtype.kind not in "biuf":
        raise ValueError
    if not bool(((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all()):
        raise ValueError
    return values


def _signs(values: Array) -> Array:
    if values.dtype.kind not in "if" or not bool((np.abs(values) == 1).all()):
        raise ValueError
    above: Array = values > 0
    return above


def _words(values: Array) -> Iterator[str]:
    """The one of two texts that means a member."""
    if values.dtype.kind in "UT" and values.size:
        found = {str(each) for each in np.unique(values)}
        said = [each for each in found if each.strip().lower() in _MEMBER_WORDS]
        if len(found) == 2 and len(said) == 1:
            yield said[0]
