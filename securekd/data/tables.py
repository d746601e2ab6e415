"""Rows of a table to numbers in [0, 1], with ranges and categories from public places only.

A declared column (`data.columns`) takes its range or its categories from the declaration. Any other column is fitted
on the public transfer set: no value of a private row changes how another row is encoded. A number is scaled to [0, 1]
and clipped, and lies in the middle where it is missing; a category becomes one-hot, and all zeros where it is missing
or unknown. What is missing, and what a number, `securekd.data.cells` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from securekd.data.cells import essence, listed, mostly_numbers, name_of, range_of, refuse_alike, scaled
from securekd.data.columns import class_names, kind_of, names, numbers, values
from securekd.data.content import table_keys
from securekd.data.examples import Array
from securekd.errors import DataError
from securekd.settings.data import Column

if TYPE_CHECKING:
    from datasets import Dataset

FREE_TEXT = 100
"""More categories than this, in more than half of the rows, are taken for free text."""


@dataclass(frozen=True)
class Number:
    """A numeric column: one feature, (v - low) / (high - low) clipped to [0, 1]; a missing value is 0.5."""

    name: str
    low: float
    high: float

    width = 1

    def encode(self, rows: "Dataset") -> Array:
        """Float32 (N, 1).

        Raises:
            DataError: if a value is not a number.
        """
        inside = scaled(values(rows, self.name), self.low, self.high, f"column {self.name!r}")
        inside[np.isnan(inside)] = 0.5
        return inside.astype(np.float32)[:, np.newaxis]


@dataclass(frozen=True)
class Category:
    """A categorical column: one feature for each category; a missing or unknown value is all zeros."""

    name: str
    categories: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.categories)

    def encode(self, rows: "Dataset") -> Array:
        """Float32 (N, categories)."""
        index = {category: i for i, category in enumerate(self.categories)}
        found = names(rows, self.name, self.categories)
        codes = np.array([index.get(name, -1) if name is not None else -1 for name in found])
        one_hot: Array = codes[:, np.newaxis] == np.arange(self.width)
        return one_hot.astype(np.float32)


@dataclass(frozen=True)
class TableEncoder:
    """Encodes the chosen columns side by side: float32 (N, F) in [0, 1]."""

    columns: tuple[Number | Category, ...]
    modality: Literal["tabular"] = "tabular"
    vocabulary: None = None
    pieces: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """(F,)."""
        return (sum(column.width for column in self.columns),)

    def encode(self, rows: "Dataset") -> Array:
        """Encode some rows.

        Raises:
            DataError: if a column is absent, or if a value of a numeric one is not a number.
        """
        return np.concatenate([column.encode(rows) for column in self.columns], axis=1)

    def unknown(self, rows: "Dataset", split: str) -> tuple[str, ...]:
        """What is encoded as none although it is there: a line for each column with categories that are not known.

        Raises:
            DataError: if one of them looks like a category that is known: spelt alike, it would be one.
        """
        notes = []
        for column in self.columns:
            if isinstance(column, Category):
                found = names(rows, column.name, column.categories)
                categories = set(column.categories)
                other = [name for name in found if name is not None and name not in categories]
                known = {essence(category): category for category in column.categories}
                for name in sorted(set(other)):
                    if essence(name) in known:
                        refuse_alike((known[essence(name)], name), f"column {column.name!r} of the {split} rows")
                if other:
                    notes.append(
                        f"column {column.name!r}: {len(other)} of {len(found)} {split} values, such as "
                        f"{listed(other[:1])}, are none of the public categories, and count as none"
                    )
        return tuple(notes)

    def keys(self, rows: "Dataset", inputs: Array) -> list[bytes]:
        """Keys of the values themselves: encoded, those beyond a range or outside the categories would look alike."""
        measured = [numbers(rows, column.name) for column in self.columns if isinstance(column, Number)]
        named = [names(rows, column.name, column.categories) for column in self.columns if isinstance(column, Category)]
        return table_keys(np.array(measured).T, list(zip(*named, strict=True)), len(rows))


def fit_table(columns: tuple[str, ...], declared: Mapping[str, Column], transfer: "Dataset") -> TableEncoder:
    """Take declared columns as they are declared, and fit the others on the public transfer set.

    Raises:
        DataError: if a declared column is not among the inputs, if the transfer set shows no value of a column, or if
            a column looks like free text.
    """
    for name in declared:
        if name not in columns:
            raise DataError(f"data.columns declares {name!r}, which is no input; inputs are {listed(columns, str)}")
    return TableEncoder(
        tuple(
            _declared(name, declared[name], transfer) if name in declared else _fitted(name, transfer)
            for name in columns
        )
    )


def _declared(name: str, column: Column, transfer: "Dataset") -> Number | Category:
    kind_of(transfer, name)  # refuses what can be neither
    if column.low is not None and column.high is not None:
        return Number(name, column.low, column.high)
    return Category(name, tuple(name_of(category, column.categories) or category for category in column.categories))


def _fitted(name: str, transfer: "Dataset") -> Number | Category:
    """A string column is one of numbers where most of its values in the transfer set are."""
    kind = kind_of(transfer, name)
    if kind == "class":
        return Category(name, class_names(transfer, name))
    column = values(transfer, name)
    present = {value for value in names(transfer, name) if value is not None}
    if not present:
        raise DataError(f"column {name!r} has no value in the transfer set: declare it in data.columns")
    if kind == "number" or mostly_numbers(column):
        found = range_of(column, f"column {name!r}")
        if found is None:
            raise DataError(f"column {name!r} has no finite value in the transfer set: declare it in data.columns")
        return Number(name, *found)
    if len(present) > FREE_TEXT and 2 * len(present) > len(transfer):
        raise DataError(
            f"column {name!r} has {len(present)} different values in {len(transfer)} transfer rows, like free text: "
            "name it alone in data.inputs to read it as text, leave it out there, or declare its categories"
        )
    return Category(name, tuple(sorted(present)))
