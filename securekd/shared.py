"""Work that several runs have in common, done once: what a training task gave is kept under what it depends on.

Two processes that need the same at the same time share it out: each takes what nobody works on, and waits only for the
rest.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from securekd.checkpoint import PhaseStore, Saved
from securekd.parallel import Perform
from securekd.training.tasks import TrainTask


class SharedWork:
    """Carries training tasks out unless some run has done so already; used like the `Perform` that it wraps."""

    def __init__(self, folder: Path, perform: Perform) -> None:
        """Keep results in `folder` (made if missing); what is missing there, `perform` does."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._store = PhaseStore(folder)
        self._perform = perform

    def __call__(self, tasks: Sequence[TrainTask]) -> Iterator[Saved]:
        """What each task gives, in order; `seconds` is 0 where it was found."""
        todo = {task_key(task): task for task in tasks}
        done: dict[str, Saved] = {}
        for wait in (False, True):
            for key in [k for k in todo if k not in done]:
                with self._lock(key, wait=wait) as held:
                    if held:
                        done[key] = self._one(key, todo[key])
        return iter([done[task_key(task)] for task in tasks])

    def _one(self, key: str, task: TrainTask) -> Saved:
        if self._store.has(key):
            return replace(self._store.get(key), seconds=0.0)
        return self._store.put(key, next(self._perform([task])))

    @contextmanager
    def _lock(self, key: str, *, wait: bool) -> Iterator[bool]:
        descriptor = os.open(self._folder / f"{key}.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)


def task_key(task: TrainTask) -> str:
    """SHA-256, in hexadecimal, of everything that a task's result depends on."""
    digest = hashlib.sha256(b"securekd/task/1")
    # Neither changes a result, but for the rounding of sums.
    for part in _parts(replace(task, micro_batch=0, device="")):
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
