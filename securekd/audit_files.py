"""Records of an audit, read from a file: texts, rows with named columns, or arrays, with labels and ids."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from securekd.data.sources import expand, first_line
from securekd.errors import DataError
from securekd_attacks import AttackInputError
from securekd_attacks.targets import Inputs, Records, content_ids

_PLURAL = {"labels": "label", "ids": "id"}
"""Arrays are called after many, columns after one: both mean the same."""

SUFFIXES = (".csv", ".jsonl", ".parquet", ".npz")


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


def read_records(path: Path, columns: Columns) -> Records:
    """Read one side.

    Args:
        path: `.csv`, `.jsonl`, `.parquet` or `.npz`. `${NAME}` is replaced from the environment.
        columns: what the columns are called.

    Raises:
        DataError: it cannot be read, holds no records, or labels that are no integers from 0.
    """
    path = expand(str(path))
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise DataError(f"no file of records {str(path)!r}: give a {', '.join(SUFFIXES)} file")
    try:
        table = _arrays(path) if path.suffix.lower() == ".npz" else _table(path)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DataError(f"cannot read {str(path)!r}: {first_line(error)}") from error
    if not table or len(next(iter(table.values()))) == 0:
        raise DataError(f"{str(path)!r} has no rows")
    inputs = _inputs(path, table, columns)
    names = table.get(columns.id)
    labels = _labels(path, table.get(columns.label))
    try:
        return Records(
            inputs=inputs,
            ids=content_ids(inputs) if names is None else tuple(str(name) for name in names),
            labels=labels,
        )
    except AttackInputError as error:
        raise DataError(f"{str(path)!r}: {error}") from error


def _inputs(path: Path, table: Mapping[str, Sequence[Any]], columns: Columns) -> Inputs:
    if path.suffix.lower() == ".npz":
        if columns.inputs not in table:
            raise DataError(f"{str(path)!r} has no array {columns.inputs!r}: it has {', '.join(table)}")
        array = np.asarray(table[columns.inputs])
        if array.dtype.kind in "US":
            return [str(text) for text in array.tolist()]
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise DataError(f"{str(path)!r}: {columns.inputs} must be finite numbers or texts, not {array.dtype}")
        return array
    if columns.text in table:
        texts = table[columns.text]
        bad = [i for i, text in enumerate(texts) if not isinstance(text, str) or not text]
        if bad:
            raise DataError(f"{str(path)!r}: row {bad[0] + 1} has no text in {columns.text!r}: leave it out")
        return list(texts)
    kept = {name: column for name, column in table.items() if name not in (columns.label, columns.id)}
    if not kept:
        raise DataError(f"{str(path)!r} has no column {columns.text!r}, and nothing else: name one with --text")
    numbers = [_numbers(column) for column in kept.values()]
    if all(column is not None for column in numbers):
        return np.stack([column for column in numbers if column is not None], axis=1)
    return [dict(zip(kept, row, strict=True)) for row in zip(*kept.values(), strict=True)]


def _numbers(column: Sequence[Any]) -> Any:
    try:
        array = np.array([float(value) for value in column])
    except (TypeError, ValueError):
        return None
    return array if np.isfinite(array).all() else None


def _labels(path: Path, column: Sequence[Any] | None) -> Any:
    if column is None:
        return None
    labels = []
    for row, value in enumerate(column):
        try:
            whole = int(value)
        except (TypeError, ValueError):
            whole = -1
        if whole < 0 or str(value).strip() not in (str(whole), f"{whole}.0"):
            raise DataError(f"{str(path)!r}: label {value!r} in row {row + 1} is no integer from 0: give class numbers")
        labels.append(whole)
    return np.array(labels, dtype=np.int64)


def _table(path: Path) -> dict[str, Sequence[Any]]:
    if path.suffix.lower() == ".parquet":
        from securekd.data.sources import load

        return {name: list(column) for name, column in load(str(path)).to_dict().items()}
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            csv.field_size_limit(1 << 24)
            rows: list[dict[str, Any]] = list(csv.DictReader(file, strict=True))
        else:
            rows = [json.loads(line) for line in file if line.strip()]
    if not rows:
        return {}
    heads = list(rows[0]) if isinstance(rows[0], dict) else []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or set(row) != set(heads) or None in row or None in row.values():
            raise ValueError(f"row {number} has other columns than the first, or empty ones")
    return {name: [row[name] for row in rows] for name in heads}


def _arrays(path: Path) -> dict[str, Sequence[Any]]:
    import zipfile

    if not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz file, as numpy.savez writes one")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: dict[str, Any] = {_PLURAL.get(name, name): archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(first_line(error)) from error
    if len({len(array) if array.ndim else 0 for array in found.values()}) > 1:
        raise ValueError(f"arrays of different lengths: {', '.join(f'{k} {v.shape}' for k, v in found.items())}")
    return found
