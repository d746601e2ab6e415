"""Shadow training: reference models on random halves of the records, their signals streamed to a store on disk."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from numpy.typing import ArrayLike

from securekd_attacks.errors import BadSetting
from securekd_attacks.inputs import IntArray
from securekd_attacks.references.store import ShadowDesign, SignalStore

Model = TypeVar("Model")
Train = Callable[[IntArray], Model]
"""Trains a model with the records of these indices; everything random in it must follow from them."""
Signal = Callable[[Model], ArrayLike]
"""A model's signal of *every* record, those that it was trained with or not: shape (records,), finite."""
Progress = Callable[[int, int], None]


def train_shadows(
    design: ShadowDesign,
    train: Train[Model],
    signal: Signal[Model],
    folder: Path,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> SignalStore:
    """Train the reference models that are not in the store yet, and store their signals one by one.

    Interrupted, it goes on with the same call. No more than `workers` rows are held in memory.

    Args:
        design: which model is trained with what.
        train: as `Train`; with several workers it is sent to processes of its own, so it must be importable there.
        signal: as `Signal`; the same holds.
        folder: the store, made where it is not there.
        workers: processes; 1 trains in this one.
        progress: called after every model with the number finished and the number of all.

    Returns:
        The store, complete.

    Raises:
        BadSetting: fewer than one worker.
        DesignChanged, DamagedStore: the folder holds something else, see `SignalStore.open`.
        ShapeMismatch, NotFiniteScores: a signal is unfit. What `train` and `signal` raise goes through.
    """
    if workers < 1:
        raise BadSetting("workers out of range", value=workers, remedy="choose at least one")
    store = SignalStore.open(folder, design)
    waiting = [reference for reference, there in enumerate(store.finished) if not there]
    finished = design.references - len(waiting)
    for reference, row in _rows(design, train, signal, waiting, workers):
        store.write(reference, row)
        finished += 1
        if progress is not None:
            progress(finished, design.references)
    return store


def _rows(
    design: ShadowDesign, train: Train[Model], signal: Signal[Model], waiting: list[int], workers: int
) -> Iterator[tuple[int, ArrayLike]]:
    if workers == 1:
        for reference in waiting:
            yield reference, _one(train, signal, design.indices(reference))
        return
    # Fresh processes: a fork of one that has run threads (torch, BLAS) may hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[ArrayLike], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    reference = waiting.pop(0)
                    running[pool.submit(_one, train, signal, design.indices(reference))] = reference
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one(train: Train[Model], signal: Signal[Model], indices: IntArray) -> ArrayLike:
    return signal(train(indices))
