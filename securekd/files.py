"""Files that are whole or not there, what their bytes are, and folders that one process works in."""

import codecs
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from securekd.errors import FolderError, RunError

# No room: on the disk, in a quota, under a limit on a file's size.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# What a text file may begin with, and what it is then: the mark of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(content: bytes) -> str:
    """The encoding that a text file's byte-order mark names; UTF-8 without one."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write `content` to `path` so that a reader, also after a crash, sees the old file or the new one, never half.

    Args:
        path: of the file.
        content: all of it.
        private: only its owner may read it; else all may, whatever the umask.

    Raises:
        RunError: if it cannot be written; nothing is left of it then.
    """
    with writing(path):
        _replace(path, content, 0o600 if private else 0o644)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file or folder could not be written, and what helps.

    Raises:
        RunError: for every error of the operating system.
    """
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: Exception, *, first: bool = False) -> RunError:
    """The error for a file or folder that could not be written; before the `first` file there is nothing to resume."""
    remedy = "make room there" if getattr(error, "errno", None) in FULL else "see that it can be written"
    said = getattr(error, "strerror", None) or error
    kept = "nothing is left of it" if first else "what was finished is kept: a run, an audit or a sweep takes --resume"
    return RunError(f"cannot write {path}: {said}; {remedy} and give the command again; {kept}")


def begin_folder(folder: Path, name: str, content: bytes) -> None:
    """Make a folder with its first file: both, or neither.

    Raises:
        FolderError: if the folder cannot be made, or is there.
        RunError: if the file cannot be written.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise FolderError(f"cannot make the folder {folder}: {error.strerror}; take another with --out") from error
    try:
        _replace(folder / name, content, 0o644)
    except BaseException as error:
        folder.rmdir()
        if isinstance(error, OSError):
            raise not_written(folder / name, error, first=True) from error
        raise


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of that name.

    Raises:
        FolderError: if nobody can tell: the name is too long, or holds a null byte, or a folder above is closed to us.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise FolderError(f"cannot use the path {path}: {said}; take another") from error
    return True


def _replace(path: Path, content: bytes, mode: int) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two processes that resumed one run would each draw a release and charge only one.

    Raises:
        FolderError: if another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderError(f"another process works in {folder}; wait for it, or take another folder") from error
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Have the new name outlast a power failure too: what was promised to be on disk may be sent next."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def next_folder(parent: Path, word: str = "run") -> Path:
    """The first of parent/run-1, parent/run-2, … that does not exist."""
    number = 1
    while (parent / f"{word}-{number}").exists():
        number += 1
    return parent / f"{word}-{number}"
