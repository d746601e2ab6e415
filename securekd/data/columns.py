"""Reading one column of a `datasets.Dataset`: as names, as numbers, and what kind of column it is."""

import reprlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from securekd.data.examples import Array
from securekd.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["image", "class", "string", "number"]


def kind_of(data: "Dataset", column: str) -> Kind:
    """What a column holds, by the source's schema.

    Raises:
        DataError: if there is no such column, or if it holds what cannot be encoded (lists, dates, audio...).
    """
    from datasets import ClassLabel, Image, Value

    if column not in data.features:
        raise DataError(f"no column {column!r} in the data; it has {', '.join(map(repr, data.features))}")
    feature = data.features[column]
    if isinstance(feature, Image):
        return "image"
    if isinstance(feature, ClassLabel):
        return "class"
    dtype = feature.dtype if isinstance(feature, Value) else ""
    if dtype in ("string", "large_string", "string_view"):
        return "string"
    if dtype == "bool" or dtype.startswith(("int", "uint", "float")) or dtype == "null":
        return "number"
    raise DataError(
        f"column {column!r} holds {dtype or type(feature).__name__}, which cannot be encoded: "
        "turn it into numbers or strings, or name the other columns in data.inputs"
    )


def names(data: "Dataset", column: str) -> list[str | None]:
    """A column's values as names: class names of a `ClassLabel`, whole numbers without a point; None where missing.

    Raises:
        DataError: if there is no such column, or if its values have no names.
    """
    kind = kind_of(data, column)
    if kind == "image":
        raise DataError(f"column {column!r} holds images, where names are needed (a label, an institution)")
    values = _arrow(data, column).to_pylist()
    if kind == "class":
        known = data.features[column].names
        return [known[v] if v is not None and v >= 0 else None for v in values]
    return [_name(v) for v in values]


def numbers(data: "Dataset", column: str) -> Array:
    """A column's values as float64, NaN where a value is missing.

    Raises:
        DataError: if a value is not a number.
    """
    values = _arrow(data, column)
    try:
        converted: Array = values.cast("float64").to_numpy()
    except ValueError:  # some string is not a number, or not as Arrow reads them
        cells = values.to_pylist()
        found = [_number(cell) for cell in cells]
        wrong = [cell for cell, number in zip(cells, found, strict=True) if number is None]
        if wrong:
            raise DataError(
                f"column {column!r} is read as numbers, and {len(wrong)} of {len(found)} values are none, such as "
                f"{reprlib.repr(wrong[0])}: leave a cell empty where a value is missing, or declare categories in "
                "data.columns"
            ) from None
        converted = np.array(found, dtype=np.float64)
    return converted


def take(data: "Dataset", rows: Array) -> "Dataset":
    """Some rows of a data set, in the order given.

    `Dataset.select` keeps indices and gathers row by row on every later access; a table without images, which is read
    column by column, is gathered once instead.
    """
    from datasets import Dataset, DatasetInfo, Image

    if any(isinstance(feature, Image) for feature in data.features.values()):
        return data.select(rows)
    return Dataset(data.with_format("arrow")[:].take(rows), info=DatasetInfo(features=data.features))


def _arrow(data: "Dataset", column: str) -> Any:
    return data.select_columns([column]).with_format("arrow")[:].column(column)


def _name(value: object) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(cell: str | None) -> float | None:
    """NaN for an empty cell, None for what is no number."""
    if cell is None or not cell.strip():
        return np.nan
    try:
        return float(cell)
    except ValueError:
        return None
