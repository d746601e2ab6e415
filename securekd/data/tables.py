"""Rows of a table to numbers in [0, 1], with ranges and categories from public places only.

A declared column (`data.columns`) takes its range or its categories from the declaration. Any other column is fitted
on the public transfer set: no value of a private row changes how another row is encoded. A number is scaled to [0, 1]
and clipped, and lies in the middle where it is missing; a category becomes one-hot, and all zeros where it is missing
or unknown (a `?` in the transfer set is a category like any other).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from securekd.data.columns import kind_of, names, numbers
from securekd.data.content import table_keys
from securekd.data.examples import Array
from securekd.errors import DataError
from securekd.experiment import Column

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
        values = numbers(rows, self.name)
        scaled: Array = (np.clip(values, self.low, self.high) - self.low) / ((self.high - self.low) or 1.0)
        scaled[np.isnan(scaled)] = 0.5
        return scaled.astype(np.float32)[:, np.newaxis]


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
        codes = np.array([index.get(name, -1) if name is not None else -1 for name in names(rows, self.name)])
        one_hot: Array = codes[:, np.newaxis] == np.arange(self.width)
        return one_hot.astype(np.float32)


@dataclass(frozen=True)
class TableEncoder:
    """Encodes the chosen columns side by side: float32 (N, F) in [0, 1]."""

    columns: tuple[Number | Category, ...]
    modality: Literal["tabular"] = "tabular"
    vocabulary: None = None

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

    def keys(self, rows: "Dataset", inputs: Array) -> list[bytes]:
        """Keys of the values themselves: encoded, those beyond a range or outside the categories would look alike."""
        measured = [numbers(rows, column.name) for column in self.columns if isinstance(column, Number)]
        named = [names(rows, column.name) for column in self.columns if isinstance(column, Category)]
        return table_keys(np.array(measured).T, list(zip(*named, strict=True)), len(rows))


def fit_table(columns: tuple[str, ...], declared: Mapping[str, Column], transfer: "Dataset") -> TableEncoder:
    """Take declared columns as they are declared, and fit the others on the public transfer set.

    Raises:
        DataError: if a declared column is not among the inputs, if the transfer set shows no value of a column, or if
            a column looks like free text.
    """
    for name in declared:
        if name not in columns:
            raise DataError(f"data.columns declares {name!r}, which is no input; inputs are {', '.join(columns)}")
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
    return Category(name, column.categories)


def _fitted(name: str, transfer: "Dataset") -> Number | Category:
    """A string column is a number where each of its values in the transfer set reads as one."""
    kind = kind_of(transfer, name)
    if kind == "class":
        return Category(name, tuple(transfer.features[name].names))
    present = {value for value in names(transfer, name) if value is not None}
    if not present:
        raise DataError(f"column {name!r} has no value in the transfer set: declare it in data.columns")
    if kind == "number" or _all_finite(transfer, name):
        values = numbers(transfer, name)
        finite = values[np.isfinite(values)]
        if not len(finite):
            raise DataError(f"column {name!r} has no finite value in the transfer set: declare it in data.columns")
        return Number(name, float(finite.min()), float(finite.max()))
    if len(present) > FREE_TEXT and 2 * len(present) > len(transfer):
        raise DataError(
            f"column {name!r} has {len(present)} different values in {len(transfer)} transfer rows, like free text: "
            "name it alone in data.inputs to read it as text, leave it out there, or declare its categories"
        )
    return Category(name, tuple(sorted(present)))


def _all_finite(transfer: "Dataset", name: str) -> bool:
    """Whether each value that is there reads as a finite number."""
    try:
        values = numbers(transfer, name)
    except DataError:
        return False
    return bool(np.isfinite(values).sum() == sum(v is not None for v in names(transfer, name)))
