"""The class map, from public places only, and labels as indices into it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from securekd.data.columns import kind_of, names
from securekd.data.examples import Array
from securekd.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def class_map(label: str, sources: Sequence["Dataset"], public: Sequence["Dataset"]) -> tuple[str, ...]:
    """The names of the classes, in the order of their indices.

    They come from the first source that declares them (a `ClassLabel`), because a schema is public. Otherwise they
    are the names that occur in public rows, sorted (as numbers, where all are whole numbers): a name that occurs in
    private rows only is never learnt from them.

    Args:
        label: the column with the class.
        sources: the data sets whose schemas may declare the classes, in order of preference.
        public: the rows of the transfer set and of the test set; those without the column are passed over.

    Raises:
        DataError: if nothing public has the column, or if fewer than two classes are found.
    """
    for source in sources:
        if label in source.features and kind_of(source, label) == "class":
            return tuple(source.features[label].names)
    labelled = [rows for rows in public if label in rows.features]
    if not labelled:
        columns = ", ".join(repr(name) for rows in public[:1] for name in rows.features)
        raise DataError(f"no label column {label!r} in the data; its columns are {columns}: set data.label")
    found = {name for rows in labelled for name in names(rows, label) if name is not None}
    if len(found) < 2:
        raise DataError(
            f"the transfer and test sets show {len(found)} classes in column {label!r} ({', '.join(sorted(found))}): "
            "two or more are needed; set data.label, or take more rows into data.test"
        )
    return tuple(sorted(found, key=_order(found)))


def labels(rows: "Dataset", label: str, classes: tuple[str, ...], split: str) -> Array:
    """The class of each row, int64 (N,).

    Raises:
        DataError: if the column is absent, if a label is missing, or if a class is not in the class map.
    """
    if label not in rows.features:
        raise DataError(
            f"the {split} data has no label column {label!r}; its columns are "
            f"{', '.join(map(repr, rows.features))}: set data.label"
        )
    index = {name: i for i, name in enumerate(classes)}
    found = names(rows, label)
    missing = sum(name is None for name in found)
    if missing:
        raise DataError(
            f"{missing} of {len(found)} {split} rows have no label in column {label!r}: remove or label them"
        )
    unknown = sorted({str(name) for name in found} - set(index))
    if unknown:
        raise DataError(
            f"class {unknown[0]!r} of the {split} rows is in no public place (known: {', '.join(classes)}): "
            "declare the classes (a ClassLabel column in Parquet), or take more rows into data.transfer or data.test"
        )
    return np.array([index[str(name)] for name in found], dtype=np.int64)


def _order(found: set[str]) -> "type[int] | None":
    return int if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in found) else None
