"""Training tasks on several cores, in processes of one thread each: the order in which they end changes nothing."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, current_process, parent_process, popen_spawn_posix, resource_tracker, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import Thread
from types import FunctionType, SimpleNamespace
from typing import Any

import torch

from securekd.checkpoint import Saved
from securekd.errors import RunError
from securekd.learning.tasks import Perform, TrainTask, perform
from securekd.plugins import is_of_main


@contextmanager
def performer(workers: int | None, tasks: int) -> Iterator[Perform]:
    """A function that carries tasks out, in this process or in `workers` of them, and gives their results in order.

    Args:
        workers: number of processes; None for one on each core. They import nothing of the program that calls: it
            may be a script without a main guard, standard input or a notebook. Models of its own (`__main__:Net`)
            therefore train in this process; so does everything in a process that may have none of its own, such as
            one of `multiprocessing.Pool`.
        tasks: how many tasks come at a time at most; more workers than that would idle.

    Raises:
        RunError: if a worker process dies (out of memory, killed).
    """
    count = 1 if current_process().daemon else min(workers or available_cores(), tasks)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads for one small model are slower than one
    try:
        if count <= 1:
            yield lambda todo: map(perform, todo)
            return
        before = set(active_children())  # a program that embeds us may have children of its own
        pool = ProcessPoolExecutor(count, mp_context=_WithoutMain(), initializer=_begin_worker)
        try:
            yield lambda todo: _gather(pool, todo)
        except BaseException:  # Ctrl-C above all: nobody wants to wait for the training under way
            for worker in set(active_children()) - before:
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    finally:
        torch.set_num_threads(threads)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gather(pool: ProcessPoolExecutor, todo: Sequence[TrainTask]) -> Iterator[Saved]:
    if len(todo) == 1 or any(is_of_main(task.model.kind) for task in todo):
        yield from map(perform, todo)
        return
    try:
        with _children_deaf_to_ctrl_c():
            results = pool.map(perform, todo)  # starts the workers
        yield from results
    except BrokenProcessPool as error:
        raise RunError("a training process died (out of memory?); resume with fewer runtime.workers") from error


def _preparation_without_main(name: str) -> dict[str, Any]:
    told: dict[str, Any] = spawn.get_preparation_data(name)
    return {key: value for key, value in told.items() if not key.startswith("init_main")}


class _Popen(popen_spawn_posix.Popen):
    """Starts a process that does not import the program's main module, which may begin everything anew in each.

    The launch is Python's, but for the function that it asks what to tell the process, which has no seam of its own.
    """

    _launch = FunctionType(
        popen_spawn_posix.Popen._launch.__code__,  # type: ignore[attr-defined]
        vars(popen_spawn_posix)
        | {"spawn": SimpleNamespace(**vars(spawn) | {"get_preparation_data": _preparation_without_main})},
    )


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:  # noqa: N802 (Python's name)
        return _Popen(process_obj)


class _WithoutMain(SpawnContext):
    Process = _Process


@contextmanager
def _children_deaf_to_ctrl_c() -> Iterator[None]:
    """Ctrl-C is the parent's to answer: processes started here do not hear it, not even while they begin."""
    resource_tracker.ensure_running()  # when started later, it would lift what is blocked here
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # killed: its workers would wait for work for ever
