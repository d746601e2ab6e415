"""Signals of reference models on disk: a row for each, written once, checked when read again.

A store is a folder: `manifest.json` (the design), `inclusion.npy` (booleans, reference × record), `signals.npy`
(float32, the same shape, memory-mapped) and `rows/`, where a file for each finished row holds its SHA-256. A row counts
as finished when that file is there, and it is put there whole, after the row.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import BadSetting, DamagedStore, DesignChanged, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import IntArray, finite_scores
from securekd_attacks.references.inclusion import BoolArray
from securekd_attacks.scores import Provenance

SCHEMA = "securekd.signals/1"


@dataclass(frozen=True)
class ShadowDesign:
    """Which reference model is trained with which record: a coin for each, from a seed.

    Attributes:
        records: n, at least 1.
        references: R, at least 1. More of them leave the earlier rows as they are.
        seed: at least 0, of the coins.
        probability: of inclusion, in (0, 1); one-run bounds and LiRA online want 1/2.
        signal: what is stored, such as `scaled_logit`.
        split: which records these are, in words.
        hashes: pairs of a name (`records`, `training`, ...) and a hexadecimal SHA-256, to be held against changes.
    """

    records: int
    references: int
    seed: int
    probability: float = 0.5
    signal: str = "scaled_logit"
    split: str = ""
    hashes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.records < 1 or self.references < 1 or self.seed < 0:
            raise BadSetting(
                "the design is empty",
                value=(self.records, self.references, self.seed),
                remedy="choose at least one record, one reference and a seed of at least 0",
            )
        if not 0.0 < self.probability < 1.0:
            raise BadSetting("probability out of range", value=self.probability, remedy="choose one in (0, 1)")

    def inclusion(self) -> BoolArray:
        """Shape (references, records): who is trained with what."""
        return np.stack([self._row(reference) for reference in range(self.references)])

    def indices(self, reference: int) -> IntArray:
        """The records that one reference is trained with, ascending."""
        return np.flatnonzero(self._row(reference)).astype(np.int64)

    def provenance(self) -> Provenance:
        """What scores of a target chosen by such coins carry."""
        return Provenance("bernoulli", self.probability, self.seed, self.split, self.hashes)

    def _row(self, reference: int) -> BoolArray:
        row: BoolArray = np.random.default_rng([self.seed, reference]).random(self.records) < self.probability
        return row


class SignalStore:
    """A folder of signals; `open` makes or resumes it."""

    def __init__(self, folder: Path, design: ShadowDesign) -> None:
        self.folder = folder
        self.design = design

    @classmethod
    def open(cls, folder: Path, design: ShadowDesign) -> "SignalStore":
        """Make a store, or go on with one of the very same design.

        Raises:
            DesignChanged: the folder was begun with another design; the error says what differs.
            DamagedStore: a file is missing, or a finished row is not what was written.
        """
        if not folder.exists():
            _create(folder, design)
        store = cls(folder, design)
        store._refuse_another_design()
        store._refuse_damage()
        return store

    @classmethod
    def read(cls, folder: Path) -> "SignalStore":
        """Open a store by what its manifest says. Errors as in `open`."""
        return cls.open(folder, _design_of(_manifest(folder)))

    @property
    def finished(self) -> BoolArray:
        """Shape (references,): which rows are there."""
        return np.array([self._mark(reference).exists() for reference in range(self.design.references)])

    @property
    def inclusion(self) -> BoolArray:
        """Shape (references, records), memory-mapped and read-only."""
        mask: BoolArray = np.load(self.folder / "inclusion.npy", mmap_mode="r")
        return mask

    def signals(self) -> NDArray[np.float32]:
        """All rows, shape (references, records), memory-mapped and read-only.

        Raises:
            TooFewRecords: a row is not finished.
        """
        missing = np.flatnonzero(~self.finished)
        if missing.size:
            raise TooFewRecords(
                f"{missing.size} reference models have no signals yet, first {missing[0]}",
                value=self.design.references - missing.size,
                remedy="resume the training",
            )
        return self._matrix("r")

    def write(self, reference: int, signals: ArrayLike) -> None:
        """Store one row, as float32; it is finished when this returns.

        Raises:
            ShapeMismatch: not one number per record.
            NotFiniteScores, TooFewRecords: NaN, an infinity, or nothing.
        """
        row = finite_scores(signals, f"reference {reference}", fewest=1)
        if row.size != self.design.records:
            raise ShapeMismatch(
                f"reference {reference} gave another number of signals",
                value=(row.size, self.design.records),
                remedy="give one per record",
            )
        matrix = self._matrix("r+")
        matrix[reference] = row
        matrix.flush()
        _write_whole(self._mark(reference), {"sha256": _hash(matrix[reference])})

    def _matrix(self, mode: Literal["r", "r+"]) -> "np.memmap[Any, np.dtype[np.float32]]":
        matrix: np.memmap[Any, np.dtype[np.float32]] = np.load(self.folder / "signals.npy", mmap_mode=mode)
        return matrix

    def _mark(self, reference: int) -> Path:
        return self.folder / "rows" / f"{reference:06d}.json"

    def _refuse_another_design(self) -> None:
        begun, asked = asdict(_design_of(_manifest(self.folder))), asdict(self.design)
        changes = [f"{name} {begun[name]!r}, now {asked[name]!r}" for name in asked if begun[name] != asked[name]]
        if changes:
            raise DesignChanged(
                f"the store was begun with another design: {'; '.join(changes)}",
                value=str(self.folder),
                remedy="resume with the old design, or choose another folder",
            )

    def _refuse_damage(self) -> None:
        shape = (self.design.references, self.design.records)
        for name, kind in (("inclusion.npy", np.bool_), ("signals.npy", np.float32)):
            if not (self.folder / name).exists():
                raise DamagedStore(f"{name} is missing", value=str(self.folder), remedy="begin the store again")
            array = np.load(self.folder / name, mmap_mode="r")
            if array.shape != shape or array.dtype != kind:
                raise DamagedStore(f"{name} has changed", value=(array.shape, str(array.dtype)), remedy="begin again")
        if not np.array_equal(self.inclusion, self.design.inclusion()):
            raise DamagedStore("the inclusion is not its seed's", value=self.design.seed, remedy="begin again")
        matrix = self._matrix("r")
        for reference in np.flatnonzero(self.finished):
            written = json.loads(self._mark(int(reference)).read_text(encoding="utf-8"))["sha256"]
            if written != _hash(matrix[reference]):
                raise DamagedStore(
                    f"the signals of reference {reference} are not what was written",
                    value=written[:12],
                    remedy=f"delete {self._mark(int(reference)).name} to have them made again",
                )


def _create(folder: Path, design: ShadowDesign) -> None:
    """Build the folder aside and rename it, so that it is there whole or not at all."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.new")
    (aside / "rows").mkdir(parents=True)
    try:
        np.save(aside / "inclusion.npy", design.inclusion())
        open_memmap(
            aside / "signals.npy", mode="w+", dtype=np.float32, shape=(design.references, design.records)
        ).flush()
        _write_whole(aside / "manifest.json", {"schema": SCHEMA, **asdict(design)})
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedStore("no store of signals", value=str(folder), remedy="choose another folder") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DamagedStore("unknown store of signals", value=str(folder), remedy=f"give one of schema {SCHEMA}")
    return manifest


def _design_of(manifest: dict[str, Any]) -> ShadowDesign:
    try:
        given = {name: value for name, value in manifest.items() if name != "schema"}
        return ShadowDesign(**given | {"hashes": tuple(tuple(pair) for pair in given["hashes"])})
    except (TypeError, KeyError) as error:
        raise DamagedStore("the manifest is not whole", value=sorted(manifest), remedy="begin again") from error


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_suffix(".new")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _hash(row: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(row, dtype="<f4").tobytes()).hexdigest()
