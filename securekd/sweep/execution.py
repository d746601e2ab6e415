"""A sweep's runs, side by side: joblib hands them out, to processes here or to a Ray or Dask cluster.

Each run is what `securekd run` does, in a folder of its own that resumes; one that fails does not stop the others.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from securekd.errors import DataError, FolderError, InputError, PromiseError, RunError, SecurekdError
from securekd.files import alone_in
from securekd.plugins import is_of_main
from securekd.records.record import read_result
from securekd.settings.experiment import Experiment
from securekd.sweep.folder import Failure, FailureKind, SweepFolder, is_finished
from securekd.sweep.lifeline import Lifeline, end_with, lifeline
from securekd.sweep.plan import PlannedRun, SweepPlan

Backend = Literal["local", "ray", "dask"]

BACKENDS: tuple[Backend, ...] = ("local", "ray", "dask")

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Finished:
    """A run that ended.

    Attributes:
        key: which.
        seconds: that this call took for it; on Ray, since the call began.
        failure: why it gave no result; None if it did.
    """

    key: str
    seconds: float
    failure: Failure | None


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        done: runs that are settled.
        total: runs that this call shall settle, those settled before included.
        last: the run that has just ended; None at the start.
    """

    done: int
    total: int
    last: Finished | None


@dataclass(frozen=True)
class _Task:
    """One run as it goes to a worker."""

    key: str
    folder: str
    experiment: Experiment
    sweep: Lifeline


OnProgress = Callable[[Progress], None]


def carry_out_sweep(
    plan: SweepPlan,
    folder: SweepFolder,
    *,
    workers: int,
    backend: Backend = "local",
    max_runs: int | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> None:
    """Carry out what is left of a sweep.

    Args:
        plan: its runs.
        folder: where they are.
        workers: runs at a time.
        backend: where they run.
        max_runs: only the first so many runs of the plan, over all calls; None: all.
        on_progress: hears of every run that ended.

    Raises:
        FolderError: if another process works in the folder.
        InputError: if the backend is not installed.
    """
    wanted = plan.runs[:max_runs]
    # What is in the program that calls is in no other process: such runs are carried out here, one after the other.
    here = {run.key for run in wanted if any(is_of_main(name) for name in run.experiment.plugins())}
    with alone_in(folder.path):
        todo = [run for run in wanted if not folder.settled(run)]
        settled = len(wanted) - len(todo)
        on_progress(Progress(settled, len(wanted), None))
        told: set[str] = set()
        one_at_a_time = threading.Lock()

        def tell(finished: Finished) -> None:
            with one_at_a_time:
                if finished.key not in told:
                    told.add(finished.key)
                    on_progress(Progress(settled + len(told), len(wanted), finished))

        with lifeline(folder.path) as sweep, _watching(todo, folder, tell) if backend == "ray" else nullcontext():
            for finished in chain(
                _all_of(_Hands(folder, workers, backend, sweep), [run for run in todo if run.key not in here]),
                _all_of(_Hands(folder, 1, "local", sweep), [run for run in todo if run.key in here]),
            ):
                tell(finished)


@contextmanager
def _watching(runs: Sequence[PlannedRun], folder: SweepFolder, tell: Callable[[Finished], None]) -> Iterator[None]:
    """Tell of runs when they are settled: joblib's Ray backend gives nothing before all are."""
    over, start = threading.Event(), time.monotonic()

    def watch() -> None:
        left = list(runs)
        while left and not over.wait(_SECONDS_BETWEEN_LOOKS):
            for run in [run for run in left if folder.settled(run)]:
                left.remove(run)
                tell(Finished(run.key, time.monotonic() - start, folder.failure(run)))

    thread = threading.Thread(target=watch, name="tell of settled runs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class _Hands:
    """Who carries runs out: `workers` at a time, on a backend, for a sweep."""

    folder: SweepFolder
    workers: int
    backend: Backend
    sweep: Lifeline


def _all_of(hands: _Hands, runs: Sequence[PlannedRun]) -> Iterator[Finished]:
    """Carry runs out; where a worker dies, find out alone which of those under way it was."""
    folder, left = hands.folder, {run.key: run for run in runs}
    try:
        for finished in _side_by_side(hands, list(left.values())):
            del left[finished.key]
            yield finished
        return
    except BrokenProcessPool:
        suspects = [run for run in left.values() if folder.run(run.key).exists()]
    for run in suspects:
        del left[run.key]
        try:
            yield from _side_by_side(replace(hands, workers=2), [run])  # with one, joblib would stay in this process
        except BrokenProcessPool:
            failure = Failure(kind="failed", error="its process died (out of memory?); resume with fewer --workers")
            folder.note(run.key, failure)
            yield Finished(run.key, 0.0, failure)
    if not suspects and left:
        raise RunError(
            "the worker processes die before they begin a run; is there memory enough? --workers 1 takes less"
        )
    if left:
        yield from _all_of(hands, list(left.values()))


def _side_by_side(hands: _Hands, runs: Sequence[PlannedRun]) -> Iterator[Finished]:
    import joblib

    tasks = [_Task(run.key, str(hands.folder.path.absolute()), run.experiment, hands.sweep) for run in runs]
    if not tasks:
        return
    with _backend(hands.backend, hands.workers) as returns:
        parallel = joblib.Parallel(n_jobs=hands.workers, batch_size=1, return_as=returns)
        yield from parallel(joblib.delayed(carry_out_run)(task) for task in tasks)


@contextmanager
def _backend(backend: Backend, workers: int) -> Iterator[Literal["generator_unordered", "list"]]:
    """Have joblib use a backend; gives what it can return."""
    import joblib

    if backend == "local":
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            yield "generator_unordered"
    elif backend == "ray":
        register = _imported("ray.util.joblib", "ray").register_ray
        register()
        with joblib.parallel_config("ray"):
            yield "list"
    else:
        # DASK_SCHEDULER_ADDRESS names a cluster; without it there is one on this machine, for as long as the sweep.
        client = _imported("dask.distributed", "dask").Client
        here = {} if os.environ.get("DASK_SCHEDULER_ADDRESS") else {"n_workers": workers, "threads_per_worker": 1}
        with client(**here, set_as_default=True), joblib.parallel_config("dask"):
            yield "generator_unordered"


def _imported(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"--backend {extra} needs {error.name}; pip install 'securekd[{extra}]'") from error


def carry_out_run(task: _Task) -> Finished:
    """Carry one run out, or finish it, in a worker; never raises for what is wrong with the run."""
    end_with(task.sweep)
    if os.getppid() == task.sweep.pid and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep's process to answer
    folder = SweepFolder(Path(task.folder))
    start = time.monotonic()
    failure = _attempt(task.experiment, folder.run(task.key), folder.shared)
    folder.note(task.key, failure)
    return Finished(task.key, time.monotonic() - start, failure)


def _attempt(experiment: Experiment, out: Path, shared: Path) -> Failure | None:
    from securekd.laboratory.runner import keep_promises, resume, run

    try:
        if is_finished(out):  # by a worker that died before it said so
            keep_promises(read_result(out))
        elif (out / "config.toml").exists():
            resume(out, shared=shared, plugins=experiment.plugins())
        else:
            if out.exists():  # killed before its first file
                shutil.rmtree(out)
            run(experiment, out, shared=shared)
    except SecurekdError as error:
        return Failure(kind=_kind(error), error=str(error))
    except Exception as error:  # whatever it is, the other runs go on
        return Failure(kind="failed", error=f"{type(error).__name__}: {error} (unexpected)")
    return None


def _kind(error: SecurekdError) -> FailureKind:
    if isinstance(error, PromiseError):
        return "promise"
    # What is wrong with a folder (somebody works in it) or with files may be mended; with a request, it stays wrong.
    mendable = not isinstance(error, InputError) or isinstance(error, FolderError | DataError)
    return "failed" if mendable else "refused"
