"""Files of rows (CSV, JSONL, Parquet) to one Arrow table, by the same rules for a run and for an audit.

A file that could be read in two ways is refused: rows of another length, a quotation mark that never closes, columns
that are set apart by something else than commas, two columns of one name. What a cell means is not decided here
(`securekd.data.cells`): a CSV file gives strings.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securekd.data.cells import bare, listed, names_of, number_of
from securekd.data.csv_files import UnreadableFile, read_csv
from securekd.errors import DataError
from securekd.files import encoding_of

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".jsonl", ".parquet")

INDEX = re.compile(r"(Unnamed: \d+(_level_\d+)?(\.\d+)?|\.\.\.\d+)?")
"""What pandas, R and readr call a column without a name: its place, or nothing at all."""

COUNTERS = frozenset({"index", "level_0", "row.names", "rownames", "rowname", "X", "row", "row_number"})
"""Names of a first column that is left out where it counts the rows, from 0 or from 1, and does nothing else."""

_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "a zip archive or an Excel workbook", b"BZh": "bzip2"}
_PACKED |= {b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}

UNREADABLE = (ValueError, TypeError, OSError, NotImplementedError, MemoryError, OverflowError, LookupError)
"""What pyarrow's errors, and those of Python's own readers, derive from."""

DIGITS = 15
"""Decimal digits that float64 holds exactly."""

LONGEST_SAID = 300
"""Characters of a library's message that an error repeats: some print what they read."""

_CONTROL = re.compile(r"[\x00\ud800-\udfff]|\x1b[$(]")
"""What no name holds: zero bytes, halves of surrogate pairs, and how ISO-2022 changes its alphabet."""

_KINDS = {bool: "booleans", int: "numbers", float: "numbers", str: "texts", list: "lists", dict: "objects"}


@dataclass(frozen=True, eq=False)
class Rows:
    """What a file holds.

    Attributes:
        table: of CSV strings, of JSONL and Parquet what is stored; names are distinct.
        notes: what was passed over, a line each.
    """

    table: "pa.Table"
    notes: tuple[str, ...] = ()


def read_rows(path: Path) -> Rows:
    """Read a `.csv`, `.jsonl` or `.parquet` file.

    Raises:
        DataError: it cannot be read, could be read in two ways, or is empty.
    """
    readers = dict(zip(SUFFIXES, (_csv, _jsonl, _parquet), strict=True))
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{str(path)!r} is empty: it has no rows")
        return _tidied(readers[path.suffix.lower()](path))
    except UNREADABLE as error:
        raise DataError(f"cannot read {str(path)!r}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut where it is long; or its type where it has none."""
    said = next(iter(str(error).splitlines()), "").strip() or type(error).__name__
    return said if len(said) <= LONGEST_SAID else f"{said[:LONGEST_SAID]}..."


def decoded(content: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with its mark.

    Raises:
        ValueError: it is in another encoding; the message says where, and what to do.
    """
    packed = next((name for mark, name in _PACKED.items() if content.startswith(mark)), None)
    if packed is not None:
        raise UnreadableFile(f"it is no text but {packed}: unpack it, or save it as text")
    encoding = encoding_of(content)
    if encoding == "utf-8" and b"\0" in content[:1024]:
        raise UnreadableFile("it holds zero bytes, as UTF-16 without a mark or a binary file does: save it as UTF-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(
            f"line {line} is not {encoding.removesuffix('-sig').upper()} (byte 0x{content[error.start]:02x}): "
            "save it as UTF-8"
        ) from error


def _tidied(table: "pa.Table") -> Rows:
    """Plain types, names without white space around them, and no columns that only number the rows."""
    kept, notes = [], []
    for place, name in enumerate(table.column_names):
        if name.startswith("__index_level_"):
            continue
        if place == 0 and name in COUNTERS and _counts(table.column(0)):
            notes.append(f"column 1 ({name!r}), which only counts the rows, was left out")
        elif not INDEX.fullmatch(name):
            kept.append(place)
        elif table.column(place).null_count < len(table):
            _refuse_data(table.column(place), place, name)
            notes.append(f"column {place + 1} ({name!r}), which only numbers or names the rows, was left out")
    names = [bare(table.column_names[place]) for place in kept]
    unnameable = [name for name in names if _CONTROL.search(name)]
    if unnameable:
        raise UnreadableFile(
            f"column {unnameable[0][:40]!r} has control characters in its name: rename it, or save the file as UTF-8"
        )
    twice = sorted(name for name in set(names) if names.count(name) > 1)
    if twice:
        raise UnreadableFile(f"it has more than one column {twice[0]!r}: rename one")
    for place in kept:
        plain = plain_type(table.schema.field(place).type)
        if plain != table.schema.field(place).type:
            field = table.schema.field(place).with_type(plain)
            table = table.set_column(place, field, table.column(place).cast(plain, safe=False))
    table = table.select(kept)
    return Rows(table if names == table.column_names else table.rename_columns(names), tuple(notes))


def _counts(column: "pa.ChunkedArray") -> bool:
    """Whether a column counts the rows, from 0 or from 1."""
    values = names_of(column)
    return any(values == [str(row) for row in range(first, first + len(values))] for first in (0, 1))


def _refuse_data(column: "pa.ChunkedArray", place: int, name: str) -> None:
    """A column without a name of its own, in the first place, may number or name the rows; anything else is data."""
    values = names_of(column)
    whole = all(value is None or value.removeprefix("-").isdecimal() for value in values)
    first = place == 0 or name.startswith("Unnamed: 0")  # written by pandas once, and read and written again
    if not first or not (whole or len(set(values)) == len(values)):
        shown = next(value for value in values if value is not None)[:40]
        raise UnreadableFile(f"column {place + 1} ({name!r}) has no name, and values such as {shown!r}: name it")


def plain_type(kind: "pa.DataType") -> "pa.DataType":
    """The type that means the same, and that everything downstream takes."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_decimal(kind):
        return pa.float64() if kind.precision <= DIGITS else pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind


def _parquet(path: Path) -> "pa.Table":
    from pyarrow import parquet

    return parquet.ParquetFile(path).read()  # the schema's metadata carries the Hub's features (Image, ClassLabel)


def _csv(path: Path) -> "pa.Table":
    content = path.read_bytes()
    return read_csv(decoded(content), encoding_of(content))


def _jsonl(path: Path) -> "pa.Table":
    """An object on each line; a key that a line lacks is missing there."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(re.split("\r\n|\n|\r", decoded(path.read_bytes())), start=1):
        if line.strip():
            rows.append(_object(line, len(rows) + 1, number))
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows], name) for name in names}
    return pa.table(columns)


def _object(line: str, row: int, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise UnreadableFile(f"line {number} is no JSON: {error.msg} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"line {number}: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise UnreadableFile(f"row {row} (line {number}) is no JSON object: write one object with named values on each")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in {n for n, _ in pairs[:i]})
        raise UnreadableFile(f"the key {twice!r} stands twice in one object")
    return found


def _column(values: list[Any], name: str) -> "pa.Array":
    """One column of JSON values: all of one kind, where numbers may be written as texts, too."""
    import pyarrow as pa

    values = [None if value is None or value != value else value for value in values]  # NaN is no value
    kinds = {type(value) for value in values if value is not None}
    texts = kinds <= {int, float, str} and str in kinds and len(kinds) > 1
    if len(kinds) > 1 and kinds != {int, float} and not texts:
        raise _mixed(values, name)
    if texts and any(isinstance(value, str) and number_of(value) is None for value in values):
        raise _mixed(values, name)
    large = kinds == {int} and any(value is not None and not -(2**63) <= value < 2**63 for value in values)
    try:
        if texts or large:
            values = [None if value is None else str(value) for value in values]
        elif kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        return pa.array(values)
    except UNREADABLE as error:
        raise UnreadableFile(f"column {name!r}: {first_line(error)}") from error


def _mixed(values: list[Any], name: str) -> UnreadableFile:
    first: dict[str, tuple[int, Any]] = {}
    for row, value in enumerate(values, start=1):
        if value is not None:
            first.setdefault(_KINDS[type(value)], (row, value))
    shown = listed([f"{kind} ({str(value)[:40]!r} in row {row})" for kind, (row, value) in first.items()])
    return UnreadableFile(f"column {name!r} holds values of different kinds, {shown}: write one kind")
