"""Phases that are done once: what each gave is on disk before the next begins, so that a run resumes at the boundary.

A phase gives named arrays and a small JSON value. Neither noise state nor keys are ever among them. Clients' models and
single releases are: nobody but the owner may read the folder or a file in it.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from securekd.errors import RunError
from securekd.files import write_atomically, writing

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Saved:
    """What a phase gave.

    Attributes:
        arrays: by name; of any numeric type.
        info: JSON value.
        seconds: wall time that it took, when it was computed.
    """

    arrays: Arrays = field(default_factory=dict)
    info: Any = None
    seconds: float = 0.0


class PhaseStore:
    """A folder with one file for each finished phase."""

    def __init__(
        self,
        folder: Path,
        on_done: Callable[[str, Saved], None] = lambda name, saved: None,
        owns: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Use a folder.

        Args:
            folder: made if missing.
            on_done: hears of every phase, computed or found.
            owns: which phases may be looked at through this object, where several parties share a folder.
        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        self._folder = folder
        self._on_done = on_done
        self._owns = owns

    def has(self, name: str) -> bool:
        """Whether the phase is done."""
        return self._path(name).exists()

    def get(self, name: str) -> Saved:
        """What a finished phase gave."""
        from safetensors import safe_open

        with safe_open(self._path(name), framework="numpy") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads(file.metadata()["phase"])
        return Saved(arrays, about["info"], about["seconds"])

    def put(self, name: str, saved: Saved) -> Saved:
        """Store what a phase gave, whole or not at all."""
        from safetensors.numpy import save

        about = json.dumps({"info": saved.info, "seconds": saved.seconds})
        arrays = {key: np.require(value, requirements="C") for key, value in saved.arrays.items()}
        write_atomically(self._path(name), save(arrays, metadata={"phase": about}), private=True)
        self._on_done(name, saved)
        return saved

    def phase(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """What the phase gave: found on disk, or computed now and stored."""
        if self.has(name):
            saved = self.get(name)
            self._on_done(name, saved)
            return saved
        start = time.monotonic()
        saved = compute()
        return self.put(name, Saved(saved.arrays, saved.info, saved.seconds or time.monotonic() - start))

    def seconds(self) -> dict[str, float]:
        """Time of all finished phases, by the part of their names before the first dot."""
        total: dict[str, float] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            name = path.name.removesuffix(".safetensors")
            kind = name.partition(".")[0]
            total[kind] = total.get(kind, 0.0) + self.get(name).seconds
        return total

    def _path(self, name: str) -> Path:
        if "/" in name or "\\" in name or name.startswith("."):
            raise RunError(f"the phase {name!r} would lie outside of its folder; take another name")
        if not self._owns(name):
            raise RunError(f"the phase {name!r} is another party's; take another name")
        return self._folder / f"{name}.safetensors"
