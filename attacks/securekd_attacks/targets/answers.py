"""Answers of a target on disk: a batch a file, each whole or not there, so that nothing is asked twice.

A store is a folder with `manifest.json`, which says what is asked (another question is refused), and a folder for
each part (`target`, `copy-1`, `reference-a`, ...) with a `.npz` for each batch.
"""

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from securekd_attacks.errors import BadSetting, DamagedStore, DesignChanged
from securekd_attacks.inputs import FloatArray
from securekd_attacks.targets.errors import BadAnswer
from securekd_attacks.targets.records import Answers, Inputs, Target, taken

SCHEMA = "securekd.answers/1"
Progress = Callable[[str, int, int], None]
"""Called with the part, the batches done, and the batches of the part."""

_TOKENS = ("token_log_probs", "token_means", "token_deviations")


@dataclass(frozen=True)
class AnswerStore:
    """A folder of answers; `open` makes or resumes it."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, manifest: Mapping[str, object]) -> "AnswerStore":
        """Make a store, or go on with one of the very same manifest.

        Raises:
            DesignChanged: the folder was begun with another; the error says what differs.
            DamagedStore: the manifest cannot be read.
        """
        path = folder / "manifest.json"
        asked = {"schema": SCHEMA, **manifest}
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # who was a member is in it
            folder.chmod(0o700)
            _write(path, json.dumps(asked, indent=1).encode())
            return cls(folder)
        try:
            begun = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DamagedStore("no store of answers", value=str(folder), remedy="choose another folder") from error
        changed = sorted(key for key in asked.keys() | begun.keys() if asked.get(key) != begun.get(key))
        if changed:
            raise DesignChanged(
                f"the audit was begun with another {', another '.join(changed)}",
                value=begun.get(changed[0]),
                remedy="resume with what it was begun with, or choose another folder",
            )
        return cls(folder)

    def read(self, part: str, number: int) -> Answers | None:
        """One batch's answers, or None where there are none yet.

        Raises:
            DamagedStore: the file is not what was written.
        """
        path = self._path(part, number)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                return _answers({name: archive[name] for name in archive.files})
        except Exception as error:  # whatever a damaged archive makes numpy, zipfile and zlib raise
            raise DamagedStore(
                f"answers {path.name} of {part} are damaged", value=error, remedy=f"delete {path} to ask again"
            ) from error

    def write(self, part: str, number: int, answers: Answers) -> None:
        """Keep one batch's answers; they are on disk when this returns."""
        path = self._path(part, number)
        path.parent.mkdir(exist_ok=True)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **_arrays(answers))
        _write(path, file.getvalue())

    def _path(self, part: str, number: int) -> Path:
        return self.folder / part / f"{number:06d}.npz"


def ask_all(
    target: Target,
    inputs: Inputs,
    store: AnswerStore,
    part: str,
    batch: int,
    progress: Progress | None = None,
    names: Sequence[str] = (),
) -> Answers:
    """Ask a target about all records, batch by batch, and keep every answer; what is kept already is not asked.

    Args:
        target: whom to ask.
        inputs: n records.
        store: where answers are kept.
        part: of the store.
        batch: records asked about at once.
        progress: called after every batch.
        names: of the n records, for the error of a bad answer; none to count the batch's rows instead.

    Raises:
        BadSetting: the batch is below 1.
        BadAnswer: an answer is none, or of another kind than those before it.
        TargetFailed, DamagedStore: as in `Target.ask` and `AnswerStore.read`; what was answered stays.
    """
    if batch < 1:
        raise BadSetting("batch out of range", value=batch, remedy="choose at least 1")
    batches = range(0, len(inputs), batch)
    found: list[Answers] = []
    for number, start in enumerate(batches):
        rows = np.arange(start, min(start + batch, len(inputs)))
        answers = store.read(part, number)
        if answers is None:
            answers = _asked(target, taken(inputs, rows), names[start : start + batch])
            _refuse_other_kind(found, answers)
            store.write(part, number, answers)
        found.append(answers)
        if progress is not None:
            progress(part, number + 1, len(batches))
    return _joined(found)


def _asked(target: Target, inputs: Inputs, names: Sequence[str]) -> Answers:
    try:
        return target.ask(inputs)
    except BadAnswer as error:
        if error.row is None or error.row >= len(names):
            raise
        raise error.about(names[error.row]) from error


def in_order(answers: Answers, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Answers:
    """The answers that were given in the order of `rows`, in the order of the records: undoes `taken(inputs, rows)`."""
    back = np.argsort(rows, kind="stable")

    def tokens(part: tuple[FloatArray, ...] | None) -> tuple[FloatArray, ...] | None:
        return None if part is None else tuple(part[int(row)] for row in back)

    return Answers(
        log_probs=None if answers.log_probs is None else answers.log_probs[back],
        predicted=None if answers.predicted is None else answers.predicted[back],
        token_log_probs=tokens(answers.token_log_probs),
        token_means=tokens(answers.token_means),
        token_deviations=tokens(answers.token_deviations),
        cut=answers.cut,
        rounding=None if answers.rounding is None else answers.rounding[back],
    )


def _refuse_other_kind(found: list[Answers], answers: Answers) -> None:
    if not found:
        return
    first, classes = found[0], answers.log_probs is not None and answers.log_probs.shape[1]
    if first.gives != answers.gives or (first.log_probs is not None and first.log_probs.shape[1] != classes):
        raise BadAnswer(
            "the target answers now this, now that",
            value=f"{sorted(first.gives)}, then {sorted(answers.gives)}, {classes} classes",
            remedy="look into the target",
        )


def _joined(found: list[Answers]) -> Answers:
    parts: dict[str, Any] = {"cut": sum(each.cut for each in found)}
    for access in found[0].gives:
        batches = [getattr(each, access.value) for each in found]
        joined = tuple(text for batch in batches for text in batch) if access in _TOKENS else np.concatenate(batches)
        parts[access.value] = joined
    if found[0].log_probs is not None:
        parts["rounding"] = np.concatenate([_rounding(each) for each in found])
    return Answers(**parts)


def _rounding(answers: Answers) -> FloatArray:
    return (
        np.zeros(0 if answers.log_probs is None else len(answers.log_probs))
        if answers.rounding is None
        else answers.rounding
    )


def _arrays(answers: Answers) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]:
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"cut": np.array(answers.cut)}
    for name in ("log_probs", "predicted", "rounding"):
        if getattr(answers, name) is not None:
            arrays[name] = getattr(answers, name)
    for name in _TOKENS:
        if (texts := getattr(answers, name)) is not None:
            arrays["lengths"] = np.array([len(text) for text in texts])
            arrays[name] = np.concatenate(texts)
    return arrays


def _answers(arrays: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]) -> Answers:
    parts: dict[str, Any] = {"cut": int(arrays.pop("cut"))}
    ends = np.cumsum(arrays.pop("lengths", np.zeros(0, dtype=np.int64)))
    for name, array in arrays.items():
        parts[name] = tuple(np.split(array, ends[:-1])) if name in _TOKENS else array
    return Answers(**parts)


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # on a full disk no file is named
