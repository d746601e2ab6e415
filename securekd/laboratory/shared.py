"""Training that several runs have in common, done once: what it gave is kept under a digest of what it depends on.

Two processes that need the same at the same time share it out: each takes what nobody works on, and waits only for the
rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from securekd.checkpoint import Saved
from securekd.kept import Kept, digest_of
from securekd.learning.tasks import Perform, TrainTask


class SharedWork:
    """Carries training tasks out unless some run has done so already; used like the `Perform` that it wraps."""

    def __init__(self, folder: Path, perform: Perform) -> None:
        """Keep results in `folder`; what is missing there, `perform` does."""
        self._kept = Kept(folder)
        self._perform = perform

    def __call__(self, tasks: Sequence[TrainTask]) -> Iterator[Saved]:
        """What each task gives, in order; `seconds` is 0 where it was found."""
        keys = [task_key(task) for task in tasks]
        todo = dict(zip(keys, tasks, strict=True))
        done: dict[str, Saved] = {}
        for get in (self._kept.get_unless_busy, self._kept.get):
            for key in [k for k in todo if k not in done]:
                found = get(key, lambda task=todo[key]: next(self._perform([task])))  # type: ignore[misc]
                if found is not None:
                    done[key] = found
        return iter([done[key] for key in keys])


def task_key(task: TrainTask) -> str:
    """Digest of everything that a task's result depends on."""
    # None of the three changes a result, but for the rounding of sums.
    return digest_of(replace(task, micro_batch=0, device="", shared=None))
