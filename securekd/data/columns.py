"""Reading one column of a `datasets.Dataset`: what kind it is, and its values as names, numbers or texts."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from securekd.data.cells import listed, name_of, names_of, numbers_of
from securekd.data.examples import Array
from securekd.data.reading import plain_type
from securekd.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Kind = Literal["image", "class", "string", "number"]

_NAMED_ONLY = ("date", "time", "duration")
"""Types whose values have names (as institutions, say), and are no inputs."""


def kind_of(data: "Dataset", column: str) -> Kind:
    """What a column holds, by the source's schema.

    Raises:
        DataError: if there is no such column, or if it holds what cannot be encoded (lists, dates, audio...).
    """
    from datasets import ClassLabel, Image

    feature = data.features.get(column)
    if isinstance(feature, Image):
        return "image"
    if isinstance(feature, ClassLabel):
        return "class"
    dtype = _dtype(data, column)
    if dtype in ("string", "large_string", "string_view"):
        return "string"
    if dtype == "bool" or dtype.startswith(("int", "uint", "float", "decimal")) or dtype == "null":
        return "number"
    raise DataError(
        f"column {column!r} holds {dtype or type(feature).__name__}, which cannot be encoded: "
        "turn it into numbers or strings, or name the other columns in data.inputs"
    )


def names(data: "Dataset", column: str, known: Collection[str] = ()) -> list[str | None]:
    """A column's values as names (see `cells.name_of`); class names of a `ClassLabel`; None where one is missing.

    Raises:
        DataError: if there is no such column, or if its values have no names.
    """
    if not _dtype(data, column).startswith(_NAMED_ONLY):
        kind = kind_of(data, column)
        if kind == "image":
            raise DataError(f"column {column!r} holds images, where names are needed (a label, an institution)")
        if kind == "class":
            declared = class_names(data, column)
            codes = values(data, column).to_pylist()
            return [declared[code] if code is not None and code >= 0 else None for code in codes]
    return names_of(values(data, column), known)


def class_names(data: "Dataset", column: str) -> tuple[str, ...]:
    """The names that a `ClassLabel` declares, written as those of other columns; one that means missing is kept."""
    return tuple(name_of(name) or name for name in data.features[column].names)


def numbers(data: "Dataset", column: str) -> Array:
    """A column's values as float64, NaN where a value is missing.

    Raises:
        DataError: if a value is not a number.
    """
    return numbers_of(values(data, column), f"column {column!r}")


def texts(data: "Dataset", column: str) -> list[str]:
    """A column's values as they stand; a missing one is empty.

    Raises:
        DataError: if there is no such column, or if it holds no texts.
    """
    kind_of(data, column)
    return ["" if value is None else str(value) for value in values(data, column).to_pylist()]


def values(data: "Dataset", column: str) -> "pa.ChunkedArray":
    """A column as Arrow holds it, in a plain type: sources of a user's own and the Hub's may have others."""
    found = data.select_columns([column]).with_format("arrow")[:].column(column)
    plain = plain_type(found.type)
    return found if plain == found.type else found.cast(plain, safe=False)


def take(data: "Dataset", rows: Array) -> "Dataset":
    """Some rows of a data set, in the order given.

    `Dataset.select` keeps indices and gathers row by row on every later access; a table without images, which is read
    column by column, is gathered once instead.
    """
    from datasets import Dataset, DatasetInfo, Image

    if any(isinstance(feature, Image) for feature in data.features.values()):
        return data.select(rows)
    return Dataset(data.with_format("arrow")[:].take(rows), info=DatasetInfo(features=data.features))


def _dtype(data: "Dataset", column: str) -> str:
    from datasets import Value

    if column not in data.features:
        raise DataError(f"no column {column!r} in the data; it has {listed(list(data.features))}")
    feature: Any = data.features[column]
    return feature.dtype if isinstance(feature, Value) else ""
