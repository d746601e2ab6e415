"""A folder of images by class: what is read, and what is passed over and said.

An image is told by its first bytes, not by its name. Only the folders directly in the folder are classes, and only the
files directly in them are read.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from securekd.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    }
)
"""What files that are decoded are called: one that is no image is refused, not passed over."""

RAW_SUFFIXES = frozenset({".3fr", ".arw", ".cr2", ".dng", ".iiq", ".nef", ".nrw", ".pef", ".srw"})
"""Camera raw formats made of TIFF, whose first image is a thumbnail."""

OTHER_SUFFIXES = frozenset(
    {".avif", ".cr3", ".dcm", ".exr", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jxl", ".orf"}
    | {".pam", ".pcx", ".pfm", ".psd", ".raf", ".rw2", ".svg", ".svgz", ".tga", ".xcf"}
)
"""Image formats that are not decoded."""

_HEAD = 1024
_NAMED = 3
_TIFF = re.compile(rb"II[*+]\0|MM\0[*+]")
_DECODED = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF.{4}WEBP|GIF8[79]a|II[*+]\0|MM\0[*+]"
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|P[1-6]\s(?:\s|#[^\n]*\n)*\d",
    re.DOTALL,
)
_OTHER = re.compile(
    rb".{4}ftyp(?:hei|hev|mif1|msf1|avi[fs]|crx )|\xff\x0a|\0{3}\x0c(?:JXL|jP ) |\xff\x4f\xff\x51|8BPS|\0\0\x01\0"
    rb"|gimp xcf|\x76\x2f\x31\x01|.{128}DICM|(?:\xef\xbb\xbf)?\s*<(?:svg|(?:\?xml|!).{0,900}?<svg)",
    re.DOTALL,
)


class Passed(Enum):
    """Why something in the folder is not read: for one, and for several."""

    BESIDE = ("image beside the class folders", "images beside the class folders")
    FORMAT = ("image in a format that is not decoded", "images in formats that are not decoded")
    OTHER = ("file that is no image", "files that are no images")
    DEEPER = ("file in a deeper folder", "files in deeper folders")
    HIDDEN = ("hidden file or folder", "hidden files or folders")
    LINKED = ("link to a folder", "links to folders")
    BROKEN = ("link that leads nowhere", "links that lead nowhere")
    SPECIAL = ("pipe, socket or device", "pipes, sockets or devices")


@dataclass(frozen=True)
class Found:
    """Something in the folder; `passed` is None for an image that is read."""

    path: Path
    passed: Passed | None


def read_folder(path: Path) -> tuple["Dataset", tuple[str, ...]]:
    """Read a folder with one folder of images for each class.

    Returns:
        The images, by class and name, and one line for each kind of thing that was passed over: how many, then a colon
        and the names of the first.

    Raises:
        DataError: if it holds no class folder, if a class folder holds no image, if a file that is called an image is
            none, if a file or folder cannot be read, or if a name is not UTF-8.
    """
    from datasets import ClassLabel, Dataset, Features, Image

    try:
        inside = {entry: entry.is_dir() and not entry.name.startswith(".") for entry in sorted(path.iterdir())}
        classes = [entry for entry, is_class in inside.items() if is_class]
        passed = [_beside(one) for entry, is_class in inside.items() if not is_class for one in _look(entry)]
        files: list[Path] = []
        labels: list[int] = []
        for number, folder in enumerate(classes):
            found = [one for entry in sorted(folder.iterdir()) for one in _look(entry)]
            images = [one.path for one in found if one.passed is None]
            if not images:
                raise DataError(_empty(f"class folder {str(folder)!r} holds no images", _notes(path, found)))
            files += images
            labels += [number] * len(images)
            passed += [one for one in found if one.passed is not None]
    except OSError as error:
        raise DataError(f"cannot read {str(error.filename or path)!r}: {error.strerror or error}") from error
    if not files:
        raise DataError(_empty(f"no images in class folders of {str(path)!r}", _notes(path, passed)))
    features = Features({"image": Image(), "label": ClassLabel(names=[_utf8(folder).name for folder in classes])})
    columns = {"image": [str(_utf8(file)) for file in files], "label": labels}
    return Dataset.from_dict(columns, features=features), _notes(path, passed)


def _look(entry: Path) -> Iterator[Found]:
    """What an entry of a folder is; a folder counts as the files in it. Nothing but plain files is opened."""
    if entry.name.startswith("."):
        yield Found(entry, Passed.HIDDEN)
        return
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        yield Found(entry, Passed.BROKEN)
        return
    if stat.S_ISDIR(mode):
        yield from [Found(entry, Passed.LINKED)] if entry.is_symlink() else _below(entry)
    else:
        yield Found(entry, _passed(entry) if stat.S_ISREG(mode) else Passed.SPECIAL)


def _below(folder: Path) -> Iterator[Found]:
    for parent, _, files in os.walk(folder, onerror=_raise):
        yield from (Found(Path(parent) / name, Passed.DEEPER) for name in sorted(files))


def _raise(error: OSError) -> None:
    raise error


def _passed(file: Path) -> Passed | None:
    suffix = file.suffix.lower()
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError as error:
        raise DataError(f"cannot read {str(file)!r}: {error.strerror}") from error
    if _DECODED.match(head) and not (_TIFF.match(head) and suffix in RAW_SUFFIXES):
        return None
    if _OTHER.match(head) or suffix in RAW_SUFFIXES | OTHER_SUFFIXES:
        return Passed.FORMAT
    if suffix in SUFFIXES:
        raise DataError(f"{str(file)!r} is named as an image and holds none: remove or replace it")
    return Passed.OTHER


def _beside(found: Found) -> Found:
    return Found(found.path, found.passed or Passed.BESIDE)


def _notes(path: Path, passed: Sequence[Found]) -> tuple[str, ...]:
    """One line for each kind."""
    kinds = [(kind, [str(one.path.relative_to(path)) for one in passed if one.passed is kind]) for kind in Passed]
    return tuple(_note(kind, names) for kind, names in kinds if names)


def _note(kind: Passed, names: list[str]) -> str:
    one, several = kind.value
    counted = f"1 {one} was" if len(names) == 1 else f"{len(names):,} {several} were"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{counted} passed over: {', '.join(map(repr, names[:_NAMED]))}{more}"


def _empty(what: str, notes: Sequence[str]) -> str:
    said = f" ({'; '.join(notes)})" if notes else ""
    return f"{what}{said}: it takes one folder for each class, with the images in it"


def _utf8(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the name {str(path)!r} is not UTF-8: rename it") from error
    return path
