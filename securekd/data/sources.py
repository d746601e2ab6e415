"""`load`: a source's name becomes a `datasets.Dataset`.

Local sources are read into memory by pyarrow, never through `datasets.load_dataset`: no copy of private data stays in a
cache folder, and nothing looks for the network. Only `hub:NAME` goes there, and keeps the Hub's ordinary cache.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from securekd.data.folders import read_folder
from securekd.errors import DataError
from securekd.plugins import load_plugin

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = "digits, a .csv, .jsonl or .parquet file, a folder of images by class, hub:NAME[:SPLIT] or module:attribute"
HUB_SECONDS = 5.0
"""How long the Hub may take to answer before it counts as out of reach."""

_HUB = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<split>[^:]+))?")
_PLUGIN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_INDEX = re.compile(r"__index_level_\d+__")


def load(source: str) -> "Dataset":
    """Load a data set.

    Args:
        source: `digits` (scikit-learn's 1,797 scans of 8x8 pixels), a local `.csv`, `.jsonl` or `.parquet` file, a
            folder with one folder of images for each class, `hub:NAME` or `hub:NAME:SPLIT` (`train` by default), or
            `module:attribute`, a callable without arguments that returns a `datasets.Dataset`. `${NAME}` in a path is
            replaced from the environment. Every column of a CSV file is read as strings: which columns are numbers is
            decided from public rows, never from the whole file.

    Raises:
        DataError: if there is no such source, if it cannot be read, or if it has no rows.
        SettingError: if a `module:attribute` cannot be imported.
    """
    if source == "digits":
        data = _digits()
    elif source.startswith("hub:"):
        data = _hub(source)
    elif _PLUGIN.fullmatch(source):
        data = _plugin(source)
    else:
        data = _local(expand(source))
    if len(data) == 0:
        raise DataError(f"{source!r} has no rows")
    return data


def identity(source: str) -> str:
    """A name under which two spellings of the same source are equal."""
    hub = _HUB.fullmatch(source)
    if hub:
        return f"hub:{hub['name']}:{hub['split'] or 'train'}"
    if source == "digits" or source.startswith("hub:") or _PLUGIN.fullmatch(source):
        return source
    return str(expand(source).resolve())


def expand(path: str) -> Path:
    """A path with `~` and `${NAME}` replaced.

    Raises:
        DataError: if the environment has no such variable.
    """
    try:
        return Path(Template(path).substitute(os.environ)).expanduser()
    except KeyError as error:
        name = error.args[0]
        raise DataError(
            f"{path!r} needs the environment variable {name}, which is not set: export {name}=..."
        ) from error
    except ValueError as error:
        raise DataError(f"{path!r} has a $ without a name: write ${{NAME}}, or $$ for the sign itself") from error


def _local(path: Path) -> "Dataset":
    if not path.exists():
        raise DataError(f"no file or folder {str(path)!r}: give {KINDS}")
    if path.is_dir():
        return _image_folder(path)
    readers: dict[str, Callable[[Path], Any]] = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"cannot tell what {str(path)!r} is: give {KINDS}")
    if path.stat().st_size == 0:
        raise DataError(f"{str(path)!r} is empty")
    try:
        return _in_memory(readers[path.suffix.lower()](path), path)
    except (ValueError, TypeError, OSError, NotImplementedError) as error:  # pyarrow's errors derive from these
        raise DataError(f"cannot read {str(path)!r}: {first_line(error)}") from error


def _in_memory(table: Any, path: Path) -> "Dataset":
    import pyarrow as pa
    from datasets import Dataset

    table = table.select([i for i, name in enumerate(table.column_names) if not _INDEX.fullmatch(name)])
    twice = {name for name in table.column_names if table.column_names.count(name) > 1}
    if twice:
        raise DataError(f"{str(path)!r} has more than one column {min(twice)!r}: rename one")
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = field.with_type(field.type.value_type)
            table = table.set_column(i, plain, table.column(i).cast(plain.type))
    return Dataset(table)


def _read_csv(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as reader:
        columns = reader.schema.names
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True, null_values=["", "NaN", "nan"]
    )
    return csv.read_csv(path, parse_options=parse, convert_options=convert)


def _read_jsonl(path: Path) -> Any:
    from pyarrow import json

    return json.read_json(path)


def _read_parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path).read()  # the schema's metadata carries the Hub's features (Image, ClassLabel)


def _image_folder(path: Path) -> "Dataset":
    data, _ = read_folder(path)
    return data


def _digits() -> "Dataset":
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(n) for n in digits.target_names])})
    return Dataset.from_dict({"image": list(pixels), "label": digits.target.tolist()}, features=features)


def _plugin(source: str) -> "Dataset":
    from datasets import Dataset

    build = load_plugin(source)
    if not callable(build):
        raise DataError(f"{source!r} is a {type(build).__name__}: give a callable without arguments")
    data = build()
    if not isinstance(data, Dataset):
        raise DataError(f"{source!r} returned a {type(data).__name__}: return one datasets.Dataset (a single split)")
    return data


def _hub(source: str) -> "Dataset":
    parts = _HUB.fullmatch(source)
    if parts is None:
        raise DataError(f"{source!r} is no Hub data set: write hub:NAME or hub:NAME:SPLIT")
    if Path(parts["name"]).exists():  # datasets would read that instead
        raise DataError(f"a local {parts['name']!r} hides the Hub's data set of that name: start from another folder")
    _reach_hub(source)
    from datasets import Dataset, load_dataset

    try:
        data = load_dataset(parts["name"], split=parts["split"] or "train")
    except Exception as error:  # whatever the Hub, its scripts or its readers raise: the source cannot be used
        raise DataError(f"cannot load {source!r}: {first_line(error)}; see huggingface.co/datasets") from error
    if not isinstance(data, Dataset):
        raise DataError(f"{source!r} is a {type(data).__name__}: name one split")
    return data


def _reach_hub(source: str) -> None:
    """One quick request, because without a network `datasets` tries again for the better part of a minute."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return  # the cache may hold it
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:
        raise DataError(
            f"cannot load {source!r}: {constants.ENDPOINT} is out of reach ({first_line(error)}); "
            "set HF_HUB_OFFLINE=1 to use a copy in the cache, or give a local .parquet file"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__).strip()
