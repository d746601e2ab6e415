"""Results under a digest of what they depend on, which several processes may need at the same time."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from securekd.checkpoint import PhaseStore, Saved
from securekd.files import writing


class Kept:
    """A folder of results, each computed by one process while others wait for it or do something else."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made if missing."""
        self._store = PhaseStore(folder)
        self._folder = folder

    def get(self, key: str, compute: Callable[[], Saved]) -> Saved:
        """What is kept under a key (with `seconds` 0), or what is computed now and kept.

        Args:
            key: digest of everything that the result depends on.
            compute: gives it. Where another process is computing the same, that is waited for.
        """
        with self._lock(key):
            return self._found_or(compute, key)

    def get_unless_busy(self, key: str, compute: Callable[[], Saved]) -> Saved | None:
        """The same; but None while another process computes it."""
        try:
            with self._lock(key, fcntl.LOCK_NB):
                return self._found_or(compute, key)
        except BlockingIOError:
            return None

    def _found_or(self, compute: Callable[[], Saved], key: str) -> Saved:
        if self._store.has(key):
            return replace(self._store.get(key), seconds=0.0)
        return self._store.put(key, compute())

    @contextmanager
    def _lock(self, key: str, flags: int = 0) -> Iterator[None]:
        path = self._folder / f"{key}.lock"
        with writing(path):
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
            yield
        finally:
            os.close(descriptor)


def digest_of(*values: Any) -> str:
    """SHA-256, in hexadecimal, of values: numbers, words, arrays, and whatever is made of them."""
    digest = hashlib.sha256(b"securekd/shared/1")
    for part in _parts(values):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """A value as byte strings, which differ where the value does."""
    yield type(value).__name__.encode()
    if isinstance(value, np.ndarray):
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, BaseModel):
        yield value.model_dump_json().encode()
    elif is_dataclass(value):
        for field in fields(value):
            yield field.name.encode()
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield str(len(value)).encode()
        for key in sorted(value):
            yield from _parts(key)
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield str(len(value)).encode()
        for item in value:
            yield from _parts(item)
    else:
        yield repr(value).encode()
