"""A sweep's folder: what it was asked for, its runs, what failed, and the pages made of it."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from securekd.errors import FolderError
from securekd.files import begin_folder, is_there, write_atomically, writing
from securekd.records.record import Result, read_result
from securekd.settings.config import Tree
from securekd.settings.table import Settings
from securekd.sweep.plan import Drawn, PlannedRun, SweepPlan, plan_sweep
from securekd.sweep.settings import SweepSettings, differences

SCHEMA: Literal["securekd.sweep/1"] = "securekd.sweep/1"

# refused: the request is wrong, and would be again; failed: while it ran; promise: more was found than was promised.
FailureKind = Literal["refused", "failed", "promise"]


class Failure(Settings):
    """Why a run gave no result, or (promise) one that nobody should rely on."""

    kind: FailureKind
    error: str


class _Asked(Settings):
    """`sweep.json`."""

    schema_: Literal["securekd.sweep/1"]
    settings: SweepSettings
    tree: dict[str, Any]
    drawn: Drawn | None


class SweepFolder:
    """Paths in a sweep's folder, and what stands there."""

    def __init__(self, path: Path) -> None:
        """Name a folder, which may not exist yet."""
        self.path = path
        self.shared = path / "shared"
        self.table = path / "sweep.parquet"
        self.page = path / "sweep.html"
        self.plots = path / "plots"
        self._asked = path / "sweep.json"

    def run(self, key: str) -> Path:
        """The folder of one run."""
        return self.path / "runs" / key

    def create(self, settings: SweepSettings, tree: Tree) -> SweepPlan:
        """Begin a sweep.

        Raises:
            FolderError: if the folder is there already, or cannot be made.
            SettingError: if a run's settings are not allowed; nothing is written then.
        """
        if is_there(self.path):
            again = f", or go on with the sweep in it with --resume {self.path}" if is_there(self._asked) else ""
            raise FolderError(f"{self.path} exists; take another folder{again}")
        plan = plan_sweep(settings, tree)
        asked = {
            "schema": SCHEMA,
            "settings": settings.model_dump(mode="json"),
            "tree": tree,
            "drawn": None if plan.drawn is None else plan.drawn.model_dump(),
        }
        begin_folder(self.path, self._asked.name, json.dumps(asked, indent=1, ensure_ascii=False).encode())
        return plan

    def plan(self) -> SweepPlan:
        """The plan of the sweep in the folder.

        Raises:
            FolderError: if there is none.
        """
        asked = self._read()
        return plan_sweep(asked.settings, asked.tree, asked.drawn)

    def refuse_other(self, settings: SweepSettings, tree: Tree) -> None:
        """Refuse to go on with a sweep file that is not what the sweep began with.

        Raises:
            FolderError: with what changed.
        """
        asked = self._read()
        changed = differences(asked.settings.model_dump(mode="json"), settings.model_dump(mode="json"))
        changed += [c for c in differences(asked.tree, tree, "experiment.") if c not in changed]
        if changed:
            raise FolderError(
                f"the sweep in {self.path} began otherwise: {'; '.join(changed[:5])}"
                f"{f'; and {len(changed) - 5} more' if len(changed) > 5 else ''}; undo that, or begin a new sweep"
            )

    def result(self, run: PlannedRun) -> Result | None:
        """A run's record, if it is finished."""
        folder = self.run(run.key)
        return read_result(folder) if (folder / "result.json").exists() else None

    def failure(self, run: PlannedRun) -> Failure | None:
        """Why a run failed, if it did."""
        path = self._failure(run.key)
        return Failure.model_validate_json(path.read_bytes()) if path.exists() else None

    def note(self, key: str, failure: Failure | None) -> None:
        """Write down that a run failed, or that it no longer does."""
        path = self._failure(key)
        if failure is None:
            path.unlink(missing_ok=True)
            return
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        write_atomically(path, failure.model_dump_json(indent=1).encode())

    def settled(self, run: PlannedRun) -> bool:
        """Whether nothing is left to do for a run: it is finished, or was refused and would be again."""
        failure = self.failure(run)
        if failure is not None:
            return failure.kind != "failed"
        return is_finished(self.run(run.key))

    def _failure(self, key: str) -> Path:
        return self.path / "failures" / f"{key}.json"

    def _read(self) -> _Asked:
        try:
            tree = json.loads(self._asked.read_bytes())
            return _Asked.model_validate({"schema_" if k == "schema" else k: v for k, v in tree.items()})
        except OSError as error:
            raise FolderError(f"{self.path} holds no sweep (no {self._asked.name}); begin one elsewhere") from error
        except (ValueError, ValidationError) as error:
            raise FolderError(f"{self._asked} is not a {SCHEMA} file: {str(error).splitlines()[0]}") from error


def is_finished(run: Path) -> bool:
    """Whether a run's folder is whole."""
    return (run / "result.json").exists() and not (run / "state").exists()
