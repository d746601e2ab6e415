"""`load`: a source's name becomes a `datasets.Dataset`.

Local sources are read into memory by pyarrow, never through `datasets.load_dataset`: no copy of private data stays in a
cache folder, and nothing looks for the network. Only `hub:NAME` goes there, and keeps the Hub's ordinary cache.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from securekd.data.folders import read_folder
from securekd.data.reading import SUFFIXES, first_line, read_rows
from securekd.errors import DataError
from securekd.plugins import PLUGIN, load_plugin

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

KINDS = "digits, a .csv, .jsonl or .parquet file, a folder of images by class, hub:NAME[:SPLIT] or module:attribute"
HUB_SECONDS = 5.0
"""How long the Hub may take to answer before it counts as out of reach."""

_HUB = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<split>[^:]+))?")


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set, and what was passed over when it was read, a line each."""

    data: "Dataset"
    notes: tuple[str, ...] = ()


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
    return open_source(source).data


def open_source(source: str) -> Opened:
    """Load a data set, as `load` does, and say what was passed over."""
    if source == "digits":
        opened = Opened(_digits())
    elif source.startswith("hub:"):
        opened = Opened(_hub(source))
    elif PLUGIN.fullmatch(source):
        opened = Opened(_plugin(source))
    else:
        opened = _local(expand(source))
    if len(opened.data) == 0:
        raise DataError(f"{source!r} has no rows")
    return opened


def identity(source: str) -> str:
    """A name under which two spellings of the same source are equal."""
    hub = _HUB.fullmatch(source)
    if hub:
        return f"hub:{hub['name']}:{hub['split'] or 'train'}"
    if source == "digits" or source.startswith("hub:") or PLUGIN.fullmatch(source):
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


def _local(path: Path) -> Opened:
    if not path.exists():
        raise DataError(f"no file or folder {str(path)!r}: give {KINDS}")
    if path.is_dir() and path.suffix.lower() in SUFFIXES:
        raise DataError(f"{str(path)!r} is a folder of parts, as Spark writes one: name one file in it, or join them")
    if path.is_dir():
        return Opened(*read_folder(path))
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"cannot tell what {str(path)!r} is: give {KINDS}")
    from datasets import Dataset

    rows = read_rows(path)
    try:
        known, notes = _known(rows.table)
        return Opened(Dataset(known), (*rows.notes, *notes))
    except Exception as error:  # a type that datasets does not know, or metadata of its own that make no sense
        raise DataError(f"cannot read {str(path)!r}: {first_line(error)}") from error


def _known(table: "pa.Table") -> tuple["pa.Table", tuple[str, ...]]:
    """The columns of types that `datasets` has, and a line for each other one: it may be one that nobody asks for."""
    import pyarrow as pa
    from datasets import Features

    unknown = []
    for field in table.schema:
        try:
            Features.from_arrow_schema(pa.schema([field.remove_metadata()]))
        except (ValueError, TypeError, NotImplementedError):
            unknown.append(field.name)
    notes = tuple(f"column {name!r} of type {str(table.schema.field(name).type)[:40]} was left out" for name in unknown)
    return (table.drop_columns(unknown) if unknown else table), notes


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
