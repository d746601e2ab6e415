"""Arrays out of a `.npz` or `.parquet` file of anybody: what it would hold is checked before any of it is.

Nothing is unpickled, no cell is empty, and a small file does not become a large array.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 30
"""Bytes of arrays that any file may hold; a larger file may hold more, up to `INFLATES` times its own size."""

INFLATES = 100


def of_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of a .npz file.

    Raises:
        ValueError: it is none, holds Python objects or one name twice, or is larger inside than it should be.
        Exception: whatever numpy, zipfile and zlib raise at a damaged archive.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz file, as numpy.savez writes one")
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if len(set(names)) < len(names):
            raise ValueError("it holds an array twice")
        size = 0
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"{member.filename} in it is no array")
            with archive.open(member) as file:
                size += _size(file, member.filename)
        _refuse_inflated(path, size)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _size(file: IO[bytes], name: str) -> int:
    """Bytes of the array that a .npy header announces."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    return math.prod(shape) * dtype.itemsize


def of_parquet(path: Path) -> Mapping[str, NDArray[Any]]:
    """The columns of a .parquet file; lists of equal length become further dimensions.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: an empty cell, lists of unequal length, a type that is neither text nor number, or more values than
            the file is large enough for.
        Exception: whatever pyarrow raises at a damaged file.
    """
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    about = file.metadata
    parts = [
        about.row_group(group).column(i) for group in range(about.num_row_groups) for i in range(about.num_columns)
    ]
    _refuse_inflated(path, sum(max(8 * part.num_values, part.total_uncompressed_size) for part in parts))
    table = file.read()
    if len(set(table.column_names)) < table.num_columns:
        raise ValueError("it holds a column twice")
    return {name: _values(name, table.column(name).combine_chunks()) for name in table.column_names}


def _values(name: str, column: Any) -> NDArray[Any]:
    import pyarrow as pa
    from pyarrow import compute, types

    if column.null_count:
        raise ValueError(f"{name} is empty in row {column.is_null().index(True).as_py()}")
    kind = column.type
    if types.is_dictionary(kind):
        return _values(name, column.dictionary_decode())
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lengths = set(compute.list_value_length(column).unique().to_pylist())
        if len(lengths) > 1:
            raise ValueError(f"{name} holds lists of {min(lengths)} to {max(lengths)} values")
        inner = _values(name, column.flatten())
        return inner.reshape(len(column), *lengths, *inner.shape[1:])
    if types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return np.array(column.to_pylist(), dtype=np.dtypes.StringDType())
    elif not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)):
        raise ValueError(f"{name} holds {kind}")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _refuse_inflated(path: Path, size: int) -> None:
    packed = path.stat().st_size
    if size > max(LARGEST, INFLATES * packed):
        raise ValueError(f"{packed:,} bytes would become {size:,}")
