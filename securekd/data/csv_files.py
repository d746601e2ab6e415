"""CSV files to Arrow tables of strings: commas between cells, a first row of names (RFC 4180).

A file that could be read in two ways is refused: columns that are set apart by something else, rows of another length,
a quotation mark that never closes.
"""

import csv
import io
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from securekd.data.cells import bare

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 10_000
"""Rows of a file with quotation marks that become Arrow at a time."""

SEEN = 20
"""Rows that are looked at to tell what sets columns apart."""

_OTHER_SEPARATORS = {
    ";": "semicolons", "\t": "tabs", "|": "bars", "^": "carets", "~": "tildes", "\x01": "control characters (Ctrl-A)",
    "，": "full-width commas", "；": "full-width semicolons", ":": "colons", " ": "spaces",
}  # fmt: skip
_WEAK = (":", " ")
"""Separators that texts are full of: they count only where there is no comma, and for three columns or more."""


class UnreadableFile(ValueError):  # noqa: N818 - named after what is wrong
    """What is wrong with a file, and the remedy; the file's name is put before it."""


def read_csv(text: str, encoding: str) -> "pa.Table":
    """Read the text of a CSV file; its encoding is for the remedies.

    Without a quotation mark anywhere nothing can be read in two ways, and Arrow reads it ten times as fast. What Arrow
    does not take is read again, to say which row is wrong.

    Raises:
        UnreadableFile: with the line or row, and the remedy.
    """
    import pyarrow as pa

    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    text = _without_declaration(text, encoding)
    _refuse_other_separators(text, encoding)
    if '"' not in text:
        try:
            return _refuse_repeated_names(_unquoted(text))
        except pa.ArrowInvalid:
            pass
    return _refuse_repeated_names(_quoted(text))


def _without_declaration(text: str, encoding: str) -> str:
    """A first line `sep=,`, which Excel reads as a declaration, is none of the rows."""
    first, _, rest = text.partition("\n")
    mark = first.strip().lower().removeprefix("sep=") if first.lower().startswith("sep=") else ","
    if mark != ",":
        raise UnreadableFile(f"its first line says that columns are set apart by {mark!r}: {_anew(mark, encoding)}")
    return rest if first.lower().startswith("sep=") else text


def _unquoted(text: str) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv as arrow

    head = _head(text)
    blank = text[: len(text) - len(text.lstrip("\r\n"))].replace("\r\n", "\n")
    places = [str(place) for place in range(len(head))]
    table = arrow.read_csv(
        io.BytesIO(text.encode()),
        read_options=arrow.ReadOptions(column_names=places, skip_rows=len(blank) + 1),
        convert_options=arrow.ConvertOptions(
            column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    return table.rename_columns([bare(name) for name in head])


def _quoted(text: str) -> "pa.Table":
    import pyarrow as pa

    head = _head(text)
    schema = pa.schema([pa.field(str(place), pa.string()) for place in range(len(head))])
    rows = _records(text)
    next(rows)
    batches = []
    done = 0
    while batch := list(itertools.islice(rows, AT_ONCE)):
        wrong = next((row for row, cells in enumerate(batch, start=1) if len(cells) != len(head)), None)
        if wrong is not None:
            raise UnreadableFile(
                f"row {done + wrong} has other columns than the first line names: {len(batch[wrong - 1])} cells "
                f"for {len(head)} names; {_why_other_columns(head, batch)}"
            )
        done += len(batch)
        columns = ([cell or None for cell in cells] for cells in zip(*batch, strict=True))
        batches.append(pa.RecordBatch.from_arrays([pa.array(cells, pa.string()) for cells in columns], schema=schema))
    return pa.Table.from_batches(batches, schema=schema).rename_columns([bare(name) for name in head])


def _why_other_columns(head: list[str], rows: list[list[str]]) -> str:
    if head[0].startswith("#"):
        return "leave out lines of comments before the names"
    if all(len(cells) == len(head) + 1 for cells in rows):
        if all(not cells[-1] for cells in rows):
            return "each row ends in a comma too many: leave it out, or name the empty column"
        return "each row begins with its own name, as R's write.table has it: write row.names = FALSE"
    return "a cell that holds a comma takes quotation marks around it"


def _refuse_repeated_names(table: "pa.Table") -> "pa.Table":
    """A second row of names among the rows, as of files that were joined, would be a record and a class."""
    import pyarrow as pa
    from pyarrow import compute

    same = None
    for place, name in enumerate(table.column_names):
        here = compute.fill_null(compute.equal(table.column(place), pa.scalar(name or None, pa.string())), False)
        same = here if same is None else compute.and_(same, here)
    row = -1 if same is None or not table.num_rows else compute.index(same, True).as_py()
    if row >= 0:
        raise UnreadableFile(f"row {row + 1} repeats the names of the columns, as files that were joined do: remove it")
    return table


def _head(text: str) -> list[str]:
    head = next(_records(text), None)
    if head is None:
        raise UnreadableFile("it has no rows")
    return head


def _records(text: str) -> Iterator[list[str]]:
    """The records of a CSV file, blank lines left out.

    Raises:
        UnreadableFile: a quotation mark stands where none may, or never closes.
    """
    found = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for record in found:
            if record:
                yield record
    except csv.Error as error:
        raise UnreadableFile(
            f"line {found.line_num}: {error}: write a quotation mark inside a quoted cell twice"
        ) from error


def _refuse_other_separators(text: str, encoding: str) -> None:
    """Refuse columns that are set apart by something else: most rows then have as many cells as the first, or more.

    Raises:
        UnreadableFile: with the remedy.
    """
    commas = len(next(iter(_few(text, ",")), []))
    for mark, called in _OTHER_SEPARATORS.items():
        counts = [len(row) for row in _few(text, mark)]
        if not counts or counts[0] < max(2, commas) or (mark in _WEAK and (commas > 1 or counts[0] < 3)):
            continue
        alike = sum(count == counts[0] for count in counts) / len(counts)
        if alike >= 0.9 or (alike > 0.5 and commas == 1):
            raise UnreadableFile(f"its columns are set apart by {called}: {_anew(mark, encoding)}")


def _few(text: str, mark: str) -> list[list[str]]:
    """The first records, taken apart at a mark."""
    found = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=mark != " ")
    return list(itertools.islice(filter(None, found), SEEN + 1))


def _anew(mark: str, encoding: str) -> str:
    said = "" if encoding.startswith("utf-8") else f", encoding={encoding!r}"
    return (
        f"save it with commas (pandas.read_csv(path, sep={mark!r}, dtype=str, keep_default_na=False{said})"
        ".to_csv(new_path, index=False) changes no cell)"
    )
