"""Files of rows (CSV, JSONL, Parquet) to one Arrow table, by the same rules for a run and for an audit.

A file that could be read in two ways is refused: rows of another length, a quotation mark that never closes, columns
that are set apart by something else than commas, two columns of one name. What a cell means is not decided here
(`securekd.data.cells`): a CSV file gives strings.
"""

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securekd.data.cells import bare, listed, names_of, number_of
from securekd.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".jsonl", ".parquet")

INDEX = re.compile(r"(Unnamed: \d+(\.\d+)?)?")
"""What pandas and R call the column with the numbers or names of rows: its place, or nothing at all."""

UNREADABLE = (ValueError, TypeError, OSError, NotImplementedError, MemoryError, OverflowError, LookupError)
"""What pyarrow's errors, and those of Python's own readers, derive from."""

AT_ONCE = 10_000
"""Rows of a CSV file with quotation marks that become Arrow at a time."""

LONGEST_SAID = 300
"""Characters of a library's message that an error repeats: some print what they read."""

SEEN = 20
"""Rows that are looked at to tell what sets columns apart."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_KINDS = {bool: "booleans", int: "numbers", float: "numbers", str: "texts", list: "lists", dict: "objects"}


class _Unreadable(ValueError):  # noqa: N818 - named after what is wrong
    """What is wrong with a file, and the remedy; the file's name is put before it."""


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
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content[:1024]:
        raise _Unreadable("it holds zero bytes, as UTF-16 without a mark or a binary file does: save it as UTF-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Unreadable(
            f"line {line} is not {encoding.removesuffix('-sig').upper()} (byte 0x{content[error.start]:02x}): "
            "save it as UTF-8"
        ) from error


def _tidied(table: "pa.Table") -> Rows:
    """Plain types, names without white space around them, and no columns that only number the rows."""
    kept, notes = [], []
    for place, name in enumerate(table.column_names):
        if name.startswith("__index_level_"):
            continue
        if not INDEX.fullmatch(name):
            kept.append(place)
        elif table.column(place).null_count < len(table):
            _refuse_data(table.column(place), place, name)
            notes.append(f"column {place + 1} ({name!r}), which only numbers or names the rows, was left out")
    names = [bare(table.column_names[place]) for place in kept]
    unnameable = [name for name in names if "\0" in name]
    if unnameable:
        raise _Unreadable(f"column {unnameable[0]!r} has a zero byte in its name: rename it")
    twice = sorted(name for name in set(names) if names.count(name) > 1)
    if twice:
        raise _Unreadable(f"it has more than one column {twice[0]!r}: rename one")
    for place in kept:
        plain = plain_type(table.schema.field(place).type)
        if plain != table.schema.field(place).type:
            field = table.schema.field(place).with_type(plain)
            table = table.set_column(place, field, table.column(place).cast(plain, safe=False))
    table = table.select(kept)
    return Rows(table if names == table.column_names else table.rename_columns(names), tuple(notes))


def _refuse_data(column: "pa.ChunkedArray", place: int, name: str) -> None:
    """A column without a name of its own, in the first place, may number or name the rows; anything else is data."""
    values = names_of(column)
    whole = all(value is None or value.removeprefix("-").isdecimal() for value in values)
    first = place == 0 or name.startswith("Unnamed: 0")
    if not first or not (whole or len(set(values)) == len(values)):
        shown = next(value for value in values if value is not None)[:40]
        raise _Unreadable(f"column {place + 1} ({name!r}) has no name, and values such as {shown!r}: name it")


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
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind


def _parquet(path: Path) -> "pa.Table":
    from pyarrow import parquet

    return parquet.ParquetFile(path).read()  # the schema's metadata carries the Hub's features (Image, ClassLabel)


def _csv(path: Path) -> "pa.Table":
    """Commas between cells, quotation marks around them, a first row of names: RFC 4180.

    Without a quotation mark anywhere nothing can be read in two ways, and Arrow reads it ten times as fast. What Arrow
    does not take is read again, to say which row is wrong.
    """
    import pyarrow as pa

    content = path.read_bytes()
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))
    if b'"' not in content:
        try:
            return _unquoted(content)
        except (pa.ArrowInvalid, _Unreadable):
            pass
    return _quoted(decoded(content))


def _unquoted(content: bytes) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv as arrow

    text = decoded(content)
    head, skipped = _head(text)
    places = [str(place) for place in range(len(head))]
    table = arrow.read_csv(
        io.BytesIO(text.encode()),
        read_options=arrow.ReadOptions(column_names=places, skip_rows=skipped),
        convert_options=arrow.ConvertOptions(
            column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    return table.rename_columns([bare(name) for name in head])


def _quoted(text: str) -> "pa.Table":
    import pyarrow as pa

    head, _ = _head(text)
    schema = pa.schema([pa.field(str(place), pa.string()) for place in range(len(head))])
    rows = _records(text)
    next(rows)
    batches = []
    done = 0
    while batch := list(itertools.islice(rows, AT_ONCE)):
        wrong = next((row for row, cells in enumerate(batch, start=1) if len(cells) != len(head)), None)
        if wrong is not None:
            raise _Unreadable(
                f"row {done + wrong} has other columns than the first line names: {len(batch[wrong - 1])} cells "
                f"for {len(head)} names; a comma inside a cell takes quotation marks around the cell"
            )
        done += len(batch)
        columns = ([cell or None for cell in cells] for cells in zip(*batch, strict=True))
        batches.append(pa.RecordBatch.from_arrays([pa.array(cells, pa.string()) for cells in columns], schema=schema))
    return pa.Table.from_batches(batches, schema=schema).rename_columns([bare(name) for name in head])


def _records(text: str) -> Iterator[list[str]]:
    """The records of a CSV file, blank lines left out.

    Raises:
        _Unreadable: a quotation mark stands where none may, or never closes.
    """
    found = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for record in found:
            if record:
                yield record
    except csv.Error as error:
        raise _Unreadable(
            f"line {found.line_num}: {first_line(error)}: write a quotation mark inside a quoted cell twice"
        ) from error


def _head(text: str) -> tuple[list[str], int]:
    """The row of names, and how many lines it takes, blank ones before it included.

    Raises:
        _Unreadable: columns are set apart by something else than commas.
    """
    commas = _few(text, ",")
    for mark, called in _OTHER_SEPARATORS.items():
        counts = [len(row) for row in _few(text, mark)]
        if counts and counts[0] > len(commas[0]) and len(set(counts)) == 1:
            raise _Unreadable(
                f"its columns are set apart by {called}: save it with commas, and with decimal points "
                f"(pandas.read_csv(path, sep={mark!r}, decimal=',').to_csv(path, index=False))"
            )
    head = next(_records(text), None)
    if head is None:
        raise _Unreadable("it has no rows")
    blank = text[: len(text) - len(text.lstrip("\r\n"))].replace("\r\n", "\n")
    return head, len(blank) + 1


def _few(text: str, mark: str) -> list[list[str]]:
    """The first records, taken apart at a mark."""
    found = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True)
    return list(itertools.islice(filter(None, found), SEEN + 1))


def _jsonl(path: Path) -> "pa.Table":
    """An object on each line; a key that a line lacks is missing there."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(decoded(path.read_bytes()).split("\n"), start=1):
        if line.strip():
            rows.append(_object(line, len(rows) + 1, number))
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows], name) for name in names}
    return pa.table(columns)


def _object(line: str, row: int, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise _Unreadable(f"line {number} is no JSON: {error.msg} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"line {number}: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise _Unreadable(f"row {row} (line {number}) is no JSON object: write one object with named values on each")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in {n for n, _ in pairs[:i]})
        raise _Unreadable(f"the key {twice!r} stands twice in one object")
    return found


def _column(values: list[Any], name: str) -> "pa.Array":
    """One column of JSON values: all of one kind, where numbers may be written as texts, too."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float, str} and str in kinds and len(kinds) > 1:
        if any(isinstance(value, str) and number_of(value) is None for value in values):
            raise _mixed(values, name)
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if kinds == {int} and any(value is not None and not -(2**63) <= value < 2**63 for value in values):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if len(kinds) > 1:
        raise _mixed(values, name)
    if kinds == {str}:
        return pa.array(values, pa.string())
    return pa.array(values)


def _mixed(values: list[Any], name: str) -> _Unreadable:
    first: dict[str, tuple[int, Any]] = {}
    for row, value in enumerate(values, start=1):
        if value is not None:
            first.setdefault(_KINDS[type(value)], (row, value))
    shown = listed([f"{kind} ({str(value)[:40]!r} in row {row})" for kind, (row, value) in first.items()])
    return _Unreadable(f"column {name!r} holds values of different kinds, {shown}: write one kind")
