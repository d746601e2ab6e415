"""Records of an audit, read from files: texts, rows with named columns, or arrays, with labels and ids.

All files of one audit are read together, by the rules of `securekd.data` for a run's files: what goes to the model is
matched by name, in the order of the first file's columns, and a column is one of numbers in all files or in none.
"""

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from securekd.data.cells import (
    EXACT,
    NO_NUMBER,
    bare,
    essence,
    listed,
    mostly_numbers,
    name_of,
    number_of,
    numbers_of,
)
from securekd.data.reading import SUFFIXES as TABLES
from securekd.data.reading import read_rows
from securekd.data.sources import expand
from securekd.errors import DataError
from securekd_attacks import AttackInputError
from securekd_attacks.targets import Inputs, Records, array_files, content_ids

if TYPE_CHECKING:
    import pyarrow as pa

_PLURAL = {"labels": "label", "ids": "id"}
"""Arrays are called after many, columns after one: both mean the same."""

SUFFIXES = (*TABLES, ".npz")

OTHERWISE = "leave a cell empty where a value is missing, or write all as words ('code 7') if the numbers are codes"
"""What to do about words in a column of numbers."""

_CLASS = re.compile("[0-9]{1,9}")
_WHOLE = re.compile("[+-]?[0-9]+")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table (or the arrays of a .npz file) are called.

    Attributes:
        text: the column with the text; where there is none, all other columns together are the record.
        label: the class, an integer from 0; may be absent, and then attacks that need it are not possible.
        id: the record's name; where it is absent, names are made of the content.
        inputs: the array with the records in a .npz file.
    """

    text: str = "text"
    label: str = "label"
    id: str = "id"
    inputs: str = "inputs"


@dataclass(frozen=True, eq=False)
class _File:
    """One file: a table with named columns, or arrays, and what was passed over."""

    path: Path
    table: "pa.Table | None"
    arrays: dict[str, Any]
    notes: list[str]

    @property
    def names(self) -> list[str]:
        return list(self.arrays) if self.table is None else self.table.column_names

    def values(self, name: str) -> list[Any] | None:
        """A column's or an array's values; None where there is none of that name."""
        if name not in self.names:
            return None
        found: list[Any] = self.arrays[name].tolist() if self.table is None else self.table.column(name).to_pylist()
        return found


def read_records(path: Path, columns: Columns) -> Records:
    """Read one side alone; see `read_sides`."""
    return read_sides([path], columns)[0]


def read_sides(paths: Sequence[Path], columns: Columns) -> tuple[Records, ...]:
    """Read the files of one audit.

    Args:
        paths: `.csv`, `.jsonl`, `.parquet` or `.npz`, the members' first. `${NAME}` is replaced from the environment.
        columns: what the columns are called.

    Returns:
        The records of each. Where all columns of all tables are numbers they are float64 arrays (N, columns), NaN
        where a value is missing; otherwise rows with the cells as they stand, None where one is missing.

    Raises:
        DataError: a file cannot be read, holds no records, labels that are no integers from 0, or other columns than
            the first.
    """
    files = [_read(expand(str(path))) for path in paths]
    tables = [file for file in files if file.table is not None]
    for file in tables:
        _refuse_mistaken_names(file, columns)
    if tables and all(columns.text not in file.names for file in tables):
        inputs = iter(_from_tables(tables, columns))
    else:
        inputs = iter([_texts(file, columns) for file in tables])
    sides = []
    for file in files:
        named, given = ((), _from_arrays(file, columns)) if file.table is None else next(inputs)
        try:
            sides.append(
                Records(given, _ids(file, columns, given), _labels(file, columns), named or None, tuple(file.notes))
            )
        except AttackInputError as error:
            raise DataError(f"{str(file.path)!r}: {error}") from error
    return tuple(sides)


def _read(path: Path) -> _File:
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise DataError(f"no file of records {str(path)!r}: give a {', '.join(SUFFIXES)} file")
    if path.suffix.lower() in TABLES:
        rows = read_rows(path)
        file = _File(path, rows.table, {}, [f"{path.name}: {note}" for note in rows.notes])
        count = len(rows.table)
    else:
        arrays = _arrays(path)
        file = _File(path, None, arrays, [])
        count = len(next(iter(arrays.values()), ()))
    if count == 0:
        raise DataError(f"{str(path)!r} has no rows")
    return file


def _texts(file: _File, columns: Columns) -> tuple[tuple[str, ...], Inputs]:
    texts = file.values(columns.text)
    if texts is None:
        raise DataError(f"{str(file.path)!r} has no column {columns.text!r}, and other files of the audit have")
    bad = [row for row, text in enumerate(texts, start=1) if not isinstance(text, str) or not text]
    if bad:
        raise DataError(f"{str(file.path)!r}: row {bad[0]} has no text in {columns.text!r}: leave it out")
    left = [name for name in file.names if name not in (columns.text, columns.label, columns.id)]
    if left:
        file.notes.append(f"{file.path.name}: beside {columns.text!r}, {listed(left)} went to no target")
    return (), texts


def _from_tables(files: Sequence[_File], columns: Columns) -> list[tuple[tuple[str, ...], Inputs]]:
    """The same columns of each file, by name, in the first one's order."""
    first = files[0]
    names = [name for name in first.names if name not in (columns.label, columns.id)]
    if not names:
        raise DataError(f"{str(first.path)!r} has no column {columns.text!r}, and nothing else: name one with --text")
    for file in files[1:]:
        _refuse_other_names(first, names, file, [n for n in file.names if n not in (columns.label, columns.id)])
    tables = [file.table for file in files if file.table is not None]
    numeric = {name: _numeric([table.column(name) for table in tables]) for name in names}
    measured = [
        {name: _numbers(file, table, name) for name in names if numeric[name]}
        for file, table in zip(files, tables, strict=True)
    ]
    if all(numeric.values()) and not any((np.abs(v) > EXACT).any() for columns in measured for v in columns.values()):
        return [(tuple(names), np.stack(list(found.values()), axis=1)) for found in measured]
    cells = {name: _cells(files, tables, name, numeric[name]) for name in names}
    return [
        (tuple(names), [dict(zip(names, row, strict=True)) for row in zip(*(cells[n][i] for n in names), strict=True)])
        for i in range(len(files))
    ]


def _refuse_mistaken_names(file: _File, columns: Columns) -> None:
    """A label or an id that is called otherwise than the options say would be a feature."""
    for option, name in (("text", columns.text), ("label", columns.label), ("id", columns.id)):
        if name in file.names:
            continue
        near = next((found for found in file.names if essence(found) == essence(name)), None)
        if near is not None:
            raise DataError(
                f"{str(file.path)!r} has a column {near!r}, and no {name!r}: rename it, or give --{option} {near}"
            )
        if name != getattr(Columns, option):
            raise DataError(
                f"{str(file.path)!r} has no column {name!r}, which --{option} names: it has {listed(file.names)}"
            )


def _refuse_other_names(first: _File, names: Sequence[str], other: _File, found: Sequence[str]) -> None:
    lacks = [name for name in names if name not in found]
    further = [name for name in found if name not in names]
    if lacks or further:
        said = [f"lacks {listed(lacks)}"] if lacks else []
        said += [f"has {listed(further)} besides"] if further else []
        raise DataError(
            f"{str(other.path)!r} has other columns than {str(first.path)!r}: it {' and '.join(said)}: "
            "give both the same columns, by name"
        )


def _numeric(columns: "Sequence[pa.ChunkedArray]") -> bool:
    """Whether a column is one of numbers, over all files together."""
    import pyarrow as pa

    written = [column for column in columns if not _is_number(column.type)]
    if any(not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) for column in written):
        return False
    if all(column.null_count == len(column) for column in written):
        return True
    return mostly_numbers(pa.chunked_array([chunk.cast(pa.string()) for column in columns for chunk in column.chunks]))


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return bool(numeric or pa.types.is_boolean(kind) or pa.types.is_null(kind))


def _numbers(file: _File, table: "pa.Table", name: str) -> Any:
    values = numbers_of(table.column(name), f"column {name!r} of {str(file.path)!r}", OTHERWISE)
    if np.isinf(values).any():
        raise DataError(f"column {name!r} of {str(file.path)!r} has infinite values: leave those rows out")
    return values


def _cells(files: Sequence[_File], tables: "Sequence[pa.Table]", name: str, numeric: bool) -> list[list[Any]]:
    """A column's cells in each file, as JSON can carry them and of one kind in all files; None where one is missing.

    Where all files give texts (CSV does), numbers stay texts too: a target gets them as they stand.
    """
    kinds = {_kind(table.column(name).type) for table in tables} - {"nothing"}
    columns = [table.column(name).to_pylist() for table in tables]
    if len(kinds) > 1 and not kinds <= {"text", "number", "boolean"}:
        raise DataError(f"column {name!r} holds {' in one file and '.join(sorted(kinds))} in another: store one kind")
    if numeric and "number" in kinds:
        whole = all(_is_whole(value) for values in columns for value in values)
        return [[_number(value, whole) for value in values] for values in columns]
    if len(kinds) > 1:
        return [[name_of(value) for value in values] for values in columns]
    return [[_plain(file, name, value) for value in values] for file, values in zip(files, columns, strict=True)]


def _kind(kind: "pa.DataType") -> str:
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_null(kind):
        return "nothing"
    return "number" if _is_number(kind) else str(kind)


def _is_whole(value: Any) -> bool:
    name = name_of(value)
    return name is None or name.lower() in NO_NUMBER or isinstance(value, bool) or _WHOLE.fullmatch(name) is not None


def _number(value: Any, whole: bool) -> int | float | None:
    name = name_of(value)
    number = value if isinstance(value, bool) else None if name is None else number_of(name)
    if number is None or math.isnan(number):
        return None
    return int(name) if whole and name is not None and not isinstance(value, bool) else float(number)


def _plain(file: _File, name: str, value: Any) -> Any:
    """A cell as JSON has it: a text without white space around it, a date as text."""
    if value is None or (isinstance(value, str | float) and name_of(value) is None):
        return None
    if isinstance(value, str):
        return bare(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(file, name, item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(file, name, item) for key, item in value.items()}
    if isinstance(value, bool | int | float) and not (isinstance(value, float) and math.isinf(value)):
        return value
    raise DataError(
        f"column {name!r} of {str(file.path)!r} holds {type(value).__name__} ({str(value)[:20]!r}), which no target "
        "takes: give numbers or texts; pictures go into a .npz file as arrays"
    )


def _from_arrays(file: _File, columns: Columns) -> Inputs:
    if columns.inputs not in file.arrays:
        raise DataError(f"{str(file.path)!r} has no array {columns.inputs!r}: it has {listed(file.names, str)}")
    array = np.asarray(file.arrays[columns.inputs])
    if array.dtype.kind in "US":
        return [str(text) for text in array.tolist()]
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise DataError(f"{str(file.path)!r}: {columns.inputs} must be finite numbers or texts, not {array.dtype}")
    return array


def _ids(file: _File, columns: Columns, inputs: Inputs) -> tuple[str, ...]:
    values = file.values(columns.id)
    if values is None:
        return content_ids(inputs)
    names = [name_of(value) for value in values]
    if None in names:
        raise DataError(
            f"{str(file.path)!r}: row {names.index(None) + 1} has no {columns.id!r}: name all records, or none"
        )
    return tuple(str(name) for name in names)


def _labels(file: _File, columns: Columns) -> Any:
    values = file.values(columns.label)
    if values is None:
        return None
    labels = []
    for row, value in enumerate(values, start=1):
        name = name_of(value)
        if name is None:
            raise DataError(
                f"{str(file.path)!r}: row {row} has other columns than the first, or no {columns.label!r}: "
                "label all records, or none"
            )
        number = {"True": 1.0, "False": 0.0}.get(name, number_of(name))
        if number is None or not _CLASS.fullmatch(name_of(number) or ""):
            raise DataError(
                f"{str(file.path)!r}: label {str(value)[:40]!r} in row {row} is no integer from 0: give class numbers"
            )
        labels.append(int(number))
    return np.array(labels, dtype=np.int64)


def _arrays(path: Path) -> dict[str, Any]:
    try:
        found = {_PLURAL.get(name, name): array for name, array in array_files.of_file(path).items()}
    except AttackInputError as error:
        raise DataError(str(error)) from error
    if len({len(array) if array.ndim else 0 for array in found.values()}) > 1:
        shapes = listed([f"{name} {array.shape}" for name, array in found.items()], str)
        raise DataError(f"cannot read {str(path)!r}: arrays of different lengths: {shapes}")
    return found
