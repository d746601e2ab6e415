"""How workers notice that their sweep was cut off, in whatever way, so that they end too.

A sweep holds a lock on a file of its own, which the kernel takes back when the process ends. Its workers wait for that
lock; who gets it and finds the file empty knows that the sweep did not end in order.
"""

import fcntl
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from securekd.files import writing


@dataclass(frozen=True)
class Lifeline:
    """What a worker needs to know of its sweep.

    Attributes:
        path: the file that is locked while the sweep goes on.
        host: where the sweep's process is. Between machines a lock may not be seen: workers elsewhere are left to their
            cluster.
        pid: of that process.
    """

    path: str
    host: str
    pid: int


@contextmanager
def lifeline(folder: Path) -> Iterator[Lifeline]:
    """Hold a new file locked in `folder`, in which no other sweep may be at work."""
    for left in folder.glob(".lifeline.*"):  # by a sweep that was cut off
        left.unlink()
    with writing(folder):
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".lifeline.")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Lifeline(str(Path(name).absolute()), socket.gethostname(), os.getpid())
        with writing(Path(name)):
            os.write(descriptor, b"ended\n")
        Path(name).unlink()
    finally:
        os.close(descriptor)


def end_with(sweep: Lifeline) -> None:
    """Have this process end as soon as its sweep is cut off, which may have happened already."""
    name = f"end with {sweep.path}"
    if sweep.host != socket.gethostname() or sweep.pid == os.getpid():
        return
    if any(thread.name == name for thread in threading.enumerate()):
        return
    try:
        descriptor = os.open(sweep.path, os.O_RDONLY)
    except FileNotFoundError:
        os._exit(1)
    threading.Thread(target=_wait, args=(descriptor,), name=name, daemon=True).start()


def _wait(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.fstat(descriptor).st_size == 0:
        os._exit(1)
    os.close(descriptor)
