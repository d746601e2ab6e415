"""Arrays out of a `.npz` or `.parquet` file of anybody: what it would hold is checked before any of it is.

Nothing is unpickled, no cell is empty, and a small file does not become a large array.
"""

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.targets.errors import BadSignalsFile

LARGEST = 1 << 30
"""Bytes of arrays that any file may hold; a larger file may hold more, up to `INFLATES` times its own size."""

INFLATES = 100

_INDEX = re.compile(r"__index_level_\d+__")
"""The column in which pandas keeps the row numbers of a table that was filtered or sorted: no signal."""

LONGEST_SAID = 200
"""Characters of a library's message that an error repeats: some print what they read."""


def of_file(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of a .npz file, or the columns of a .parquet file, in which lists become further dimensions.

    Raises:
        BadSignalsFile: it cannot be read, holds something twice, Python objects, empty cells, lists of unequal length,
            or types other than numbers and texts, or it is much larger inside than outside.
    """
    try:
        return _of_npz(path) if path.suffix.lower() == ".npz" else _of_parquet(path)
    except BadSignalsFile:
        raise
    except ImportError as error:
        raise BadSignalsFile("a .parquet file needs pyarrow", value=error, remedy="pip install pyarrow") from error
    except Exception as error:  # a damaged file's errors are numpy's, zipfile's, zlib's or pyarrow's own; all mean this
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unfit(path, said[:LONGEST_SAID], "write the .npz or .parquet file anew") from error


def _of_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise _unfit(path, "it is no .npz file", "write one with numpy.savez")
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        strange = [name for name in members if not name.endswith(".npy") or members.count(name) > 1]
        if strange:
            raise _unfit(path, f"{strange[0]}, twice or no array", "write the file with numpy.savez")
        sizes = []
        for name in members:
            with archive.open(name) as file:
                sizes.append(_announced(path, name, file))
    _refuse_inflated(path, sum(sizes))
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _announced(path: Path, name: str, file: IO[bytes]) -> int:
    """Bytes of the array that a .npy header announces."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise _unfit(path, f"{name} holds Python objects", "store numbers, or texts with astype(str)")
    return math.prod(shape) * dtype.itemsize


def _of_parquet(path: Path) -> Mapping[str, NDArray[Any]]:
    from pyarrow import parquet, types

    schema = [field for field in parquet.read_schema(path) if not _INDEX.fullmatch(field.name)]
    names = [field.name for field in schema]
    for field in schema:
        _refuse_type(path, field.name, field.type)
    if len(set(names)) < len(names):
        raise _unfit(path, "a column of one name twice", "rename one")
    # A text that many rows share is kept once, however often it would have to be written out.
    texts = [field.name for field in schema if not types.is_dictionary(field.type) and _is_text(field.type)]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        about = file.metadata
        if about.num_rows == 0:
            raise _unfit(path, "it has no rows", "store some")
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        parts = [group.column(column) for group in groups for column in range(about.num_columns)]
        _refuse_inflated(path, sum(max(8 * part.num_values, part.total_uncompressed_size) for part in parts))
        table = file.read(columns=names)
    return {name: _values(path, name, table.column(name).combine_chunks()) for name in table.column_names}


def _refuse_type(path: Path, name: str, kind: Any, listed: bool = False) -> None:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        _refuse_type(path, name, kind.value_type, listed=True)
    elif types.is_dictionary(kind):
        _refuse_type(path, name, kind.value_type, listed)
    elif not (
        any(ask(kind) for ask in (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal))
        or (_is_text(kind) and not listed)
    ):
        raise _unfit(path, f"{name} holds {kind}", "store numbers, or texts")


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return any(ask(kind) for ask in (types.is_string, types.is_large_string, types.is_string_view))


def _values(path: Path, name: str, column: Any, row_length: int = 1) -> NDArray[Any]:
    """A column's cells, shape (n, ...); `row_length` of them are of one row."""
    import pyarrow as pa
    from pyarrow import compute, types

    if column.null_count:
        row = column.is_null().index(True).as_py() // row_length
        raise _unfit(path, f"{name} is empty in row {row}", "fill it, or leave the row out")
    kind = column.type
    if types.is_dictionary(kind):
        if _is_text(kind.value_type):
            lengths = compute.binary_length(column.dictionary.cast(pa.large_string())).to_numpy()
            _refuse_inflated(path, int(lengths[column.indices.to_numpy()].sum()))
        return _values(path, name, column.dictionary_decode(), row_length)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        found = sorted(compute.list_value_length(column).unique().to_pylist())
        if len(found) > 1:
            raise _unfit(path, f"{name} holds lists of {found[0]} to {found[-1]} values", "give lists of one length")
        inner = _values(path, name, column.flatten(), row_length * max([1, *found]))
        return inner.reshape(len(column), *found, *inner.shape[1:])
    if _is_text(kind):
        return np.array(column.to_pylist(), dtype=np.dtypes.StringDType())
    if types.is_decimal(kind):
        column = column.cast(pa.float64() if kind.scale > 0 else pa.int64())
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _refuse_inflated(path: Path, size: int) -> None:
    packed = path.stat().st_size
    if size > max(LARGEST, INFLATES * packed):
        raise _unfit(path, f"{packed:,} bytes that would become {size:,}", "store the arrays as numpy.savez does")


def _unfit(path: Path, what: str, remedy: str) -> BadSignalsFile:
    return BadSignalsFile(f"cannot read {path}", value=what, remedy=remedy)
