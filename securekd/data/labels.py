"""The class map, from public places only, and labels as indices into it."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from securekd.data.cells import MANY, listed, number_of, refuse_alike
from securekd.data.columns import class_names, kind_of, names
from securekd.data.examples import Array
from securekd.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def class_map(label: str, sources: Sequence["Dataset"], public: Sequence["Dataset"]) -> tuple[str, ...]:
    """The names of the classes, in the order of their indices.

    They come from the first source that declares them (a `ClassLabel`), because a schema is public. Otherwise they
    are the names that occur in public rows, sorted (as numbers, where all are whole numbers): a name that occurs in
    private rows only is never learnt from them. Names that people would take for one are refused.

    Args:
        label: the column with the class.
        sources: the data sets whose schemas may declare the classes, in order of preference.
        public: the rows of the transfer set and of the test set; those without the column are passed over.

    Raises:
        DataError: if nothing public has the column, if fewer than two classes are found, or if the column holds
            measurements or texts and no classes.
    """
    for source in sources:
        if label in source.features and kind_of(source, label) == "class":
            return class_names(source, label)
    labelled = [rows for rows in public if label in rows.features]
    if not labelled:
        columns = listed([name for rows in public[:1] for name in rows.features])
        raise DataError(f"no label column {label!r} in the data; its columns are {columns}: set data.label")
    shown = [name for rows in labelled for name in names(rows, label) if name is not None]
    found = set(shown)
    if len(found) < 2:
        raise DataError(
            f"the transfer and test sets show {len(found)} classes in column {label!r} ({listed(sorted(found), str)}): "
            "two or more are needed; set data.label, or take more rows into data.test"
        )
    _refuse_measurements(label, shown, found)
    refuse_alike(sorted(found), f"column {label!r}")
    return tuple(sorted(found, key=_order(found)))


def labels(rows: "Dataset", label: str, classes: tuple[str, ...], split: str) -> Array:
    """The class of each row, int64 (N,).

    Raises:
        DataError: if the column is absent, if a label is missing, or if a class is not in the class map.
    """
    if label not in rows.features:
        raise DataError(
            f"the {split} data has no label column {label!r}; its columns are "
            f"{listed(list(rows.features))}: set data.label"
        )
    index = {name: i for i, name in enumerate(classes)}
    found = names(rows, label, classes)
    missing = sum(name is None for name in found)
    if missing:
        raise DataError(
            f"{missing} of {len(found)} {split} rows have no label in column {label!r}: remove or label them"
        )
    unknown = sorted({str(name) for name in found} - set(index))
    refuse_alike((*classes, *unknown), f"column {label!r} of the {split} rows and of public ones")
    if unknown:
        raise DataError(
            f"class {unknown[0]!r} of the {split} rows is in no public place (known: {listed(classes, str)}): "
            "declare the classes (a ClassLabel column in Parquet), or take more rows into data.transfer or data.test"
        )
    return np.array([index[str(name)] for name in found], dtype=np.int64)


def _refuse_measurements(label: str, shown: Sequence[str], found: set[str]) -> None:
    """Real numbers and texts are different in nearly every row; classes repeat."""
    real = sorted(name for name in found if "." in name and number_of(name) is not None)
    once = sum(times == 1 for times in Counter(shown).values())
    if len(found) > MANY and (2 * once > len(shown) or 2 * len(real) > len(found)):
        raise DataError(
            f"column {label!r} has {len(found)} different values in {len(shown)} public rows, such as "
            f"{listed((real or sorted(found))[:1])}, like measurements or texts: classes are needed; cut numbers into "
            "ranges, or set data.label"
        )


def _order(found: set[str]) -> "type[int] | None":
    return int if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in found) else None
