"""Signals that were computed elsewhere, in a file: sample × model log-probabilities, who was a member, labels.

A `.npz` file (arrays) or a `.parquet` file (columns of the same names, a row for each sample, lists in cells) holds

- one of `log_probs`, `probs` or `logits`: (n, C) of one model, or (n, M, C) of several, the target first;
- `membership`: booleans, or the integers 0 and 1, (n,) or (n, M): whether each model was trained with the sample;
- `labels`: integers (n,);

and, if wanted, `ids` (n,), names of the samples; `features` (n, D), numbers that come from no model, for the blind
baseline; `population` (n,), as `membership`: non-members that attacks learn from, and that are not scored.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.errors import BadLabels, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.references.inclusion import BoolArray
from securekd_attacks.signals.access import Signals
from securekd_attacks.signals.classes import scaled_logit
from securekd_attacks.targets import array_files, reading, remedies
from securekd_attacks.targets.errors import BadAnswer, BadSignalsFile
from securekd_attacks.targets.features import record_features
from securekd_attacks.targets.records import Records, joined
from securekd_attacks.targets.sides import References, Sides, shadow_signals

_LONGEST_SHOWN = 100
"""Characters of the names in a file that an error repeats."""

_KNOWN = frozenset({*reading.OUTPUT_KINDS, "membership", "labels", "ids", "features", "population"})


@dataclass(frozen=True, eq=False)
class SignalsFile:
    """What a file holds, checked.

    Attributes:
        name: the file's name.
        log_probs: shape (n, M, C).
        labels: shape (n,).
        membership: shape (n, M), booleans.
        ids: n distinct names.
        population: shape (n,), booleans; none of them is a member of the target.
        features: shape (n, D), or None.
        rounding: shape (n,), as `Signals.rounding`, the coarsest over the models; None where nobody looked.
    """

    name: str
    log_probs: FloatArray
    labels: IntArray
    membership: BoolArray
    ids: tuple[str, ...]
    population: BoolArray
    features: FloatArray | None
    rounding: FloatArray | None = None

    @classmethod
    def read(cls, path: Path) -> "SignalsFile":
        """Read a file.

        Raises:
            BadSignalsFile: it cannot be read, lacks something, or its parts do not belong together.
        """
        found = array_files.of_file(path)
        kind = _only_kind(path, found)
        _refuse_turned(path, kind, found[kind], found["labels"])
        log_probs, rounding = _log_probs(path, kind, found[kind])
        samples, models, classes = log_probs.shape
        labels = _labels(path, found["labels"], samples, classes)
        membership = _booleans(path, "membership", found["membership"], samples)
        membership = membership.reshape(samples, -1)
        if membership.shape != (samples, models):
            raise BadSignalsFile(
                f"{path.name}: membership and models disagree", value=(membership.shape, models), remedy="one for each"
            )
        population = _booleans(path, "population", found.get("population", np.zeros(samples, dtype=bool)), samples)
        if population.ndim != 1:
            raise BadSignalsFile(f"{path.name}: population must be (n,)", value=population.shape, remedy="one for each")
        both = np.flatnonzero(population & membership[:, 0])
        if both.size:
            raise BadSignalsFile(
                f"{path.name}: a member in the population", value=f"row {both[0]}", remedy="take it out"
            )
        return cls(
            name=path.name,
            log_probs=log_probs,
            labels=labels,
            membership=membership,
            ids=_ids(path, found.get("ids"), samples),
            population=population,
            features=_features(path, found.get("features"), samples),
            rounding=rounding,
        )

    def sides(self) -> Sides:
        """Take the first model for the target, and the others for its references.

        Raises:
            TooFewRecords: no member, or no non-member.
        """
        member, whole = self.membership[:, 0], self._signals
        parts = (member, ~member & ~self.population, self.population)
        for name, part in zip(("members", "non-members"), parts[:2], strict=True):
            if not part.any():
                raise TooFewRecords(f"{self.name} has no {name}", value=0, remedy="store some")
        rows = [np.flatnonzero(part) for part in parts]
        return Sides(
            members=whole.take(rows[0]),
            nonmembers=whole.take(rows[1]),
            population=whole.take(rows[2]) if rows[2].size else None,
            shadows=self._shadows(np.concatenate(rows[:2])),
        )

    def beside(self, members: Records, nonmembers: Records) -> Sides:
        """The sides that the records' ids name, with features (and texts) of the records for what needs them.

        Raises:
            ShapeMismatch: a record whose id is unknown here, or that is on another side than `membership` says.
            BadLabels: a record with another label than here.
        """
        features = record_features(joined([members.inputs, nonmembers.inputs]))
        parts = [
            replace(self._side(members, inside=True), features=features[: len(members)]),
            replace(self._side(nonmembers, inside=False), features=features[len(members) :]),
        ]
        whole = self.sides()
        return Sides(parts[0], parts[1], whole.population, whole.shadows)

    def _side(self, records: Records, inside: bool) -> Signals:
        place = {name: row for row, name in enumerate(self.ids)}
        unknown = [name for name in records.ids if name not in place]
        rows = np.array([place.get(name, 0) for name in records.ids])
        if unknown or bool((self.membership[rows, 0] != inside).any()):
            raise ShapeMismatch(
                f"{self.name} and the {'members' if inside else 'non-members'} disagree",
                value=f"{len(unknown)} unknown ids" if unknown else "a record on the other side",
                remedy="give the records that the signals are of, with the same ids",
            )
        if records.labels is not None and bool((records.labels != self.labels[rows]).any()):
            wrong = records.ids[int(np.argmax(records.labels != self.labels[rows]))]
            raise BadLabels(f"{self.name} has another label", value=wrong, remedy="give the same records")
        texts = [str(text) for text in records.inputs] if isinstance(records.inputs[0], str) else None
        return replace(self._signals.take(rows), texts=texts)

    def references(self) -> References:
        """Take all models for references. Whose they are is said by `ids`."""
        return References(
            ids=self.ids,
            signals=self._scaled_logits(0),
            inclusion=self.membership.T,
            log_probs=self.log_probs.transpose(1, 0, 2),
            rounding=self.rounding,
        )

    def _shadows(self, rows: NDArray[np.integer]) -> tuple[Signals, Signals] | None:
        if self.log_probs.shape[1] == 1:
            return None
        outputs, inclusion = self.log_probs[rows, 1:].transpose(1, 0, 2), self.membership[rows, 1:].T
        return shadow_signals(outputs, self.labels[rows], inclusion)

    @property
    def _signals(self) -> Signals:
        """Of all samples."""
        several = self.log_probs.shape[1] > 1
        return Signals(
            log_probs=self.log_probs[:, 0],
            labels=self.labels,
            record_ids=self.ids,
            features=self.features,
            references=self._scaled_logits(1) if several else None,
            inclusion=self.membership[:, 1:].T if several else None,
            rounding=self.rounding,
        )

    def _scaled_logits(self, first: int) -> FloatArray:
        models = range(first, self.log_probs.shape[1])
        return np.stack([scaled_logit(self.log_probs[:, model], self.labels) for model in models])


def _only_kind(path: Path, found: Mapping[str, NDArray[Any]]) -> str:
    """Which of `reading.OUTPUT_KINDS` a file holds, if it holds one, all that belongs to it, and nothing else."""
    kinds = [name for name in reading.OUTPUT_KINDS if name in found]
    lacking = [name for name in ("membership", "labels") if name not in found]
    if not kinds or lacking:
        raise BadSignalsFile(
            f"{path.name} does not hold {' and '.join(lacking) or 'one of log_probs, probs, logits'}",
            value=", ".join(sorted(found))[:_LONGEST_SHOWN],
            remedy="store one of log_probs, probs, logits, and membership and labels; see securekd audit --help",
        )
    if len(kinds) > 1:
        raise BadSignalsFile(f"{path.name} holds one thing twice", value=" and ".join(kinds), remedy="store one")
    unknown = sorted(found.keys() - _KNOWN)
    if unknown:
        raise BadSignalsFile(
            f"{path.name} holds what is no part of a signals file",
            value=", ".join(unknown)[:_LONGEST_SHOWN],
            remedy=f"leave that out; beside {kinds[0]}, membership and labels it may hold ids, features, population",
        )
    return kinds[0]


def _refuse_turned(path: Path, kind: str, given: NDArray[Any], labels: NDArray[Any]) -> None:
    """Refuse axes in another order, where the labels say which the samples' is."""
    samples = labels.shape[:1]
    if given.ndim not in (2, 3) or not samples or given.shape[:1] == samples or given.shape[1:2] != samples:
        return
    raise BadSignalsFile(
        f"{path.name}: {kind} must be (n, C) or (n, M, C), the samples first",
        value=f"shape {given.shape} beside {samples[0]} labels",
        remedy=f"store {kind}.{'T' if given.ndim == 2 else 'transpose(1, 0, 2)'}",
    )


def _log_probs(path: Path, kind: str, given: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Of all models, and the coarsest rounding of each sample."""
    array = given[:, None, :] if given.ndim == 2 else given
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise BadSignalsFile(
            f"{path.name}: {kind} must be floats (n, C) or (n, M, C)",
            value=f"{given.dtype}, shape {given.shape}",
            remedy=f"store {kind}.astype(float)" if array.ndim == 3 else "give every class of every sample",
        )
    if 0 in array.shape:
        raise BadSignalsFile(f"{path.name}: {kind} are empty: no records", value=given.shape, remedy="store some")
    try:
        models = range(array.shape[1])
        found = [reading.distributions(kind, array[:, model].astype(np.float64), len(array)) for model in models]
        log_probs = np.stack([each.log_probs for each in found], axis=1)
    except BadAnswer as error:
        where = "" if error.row is None else f" in row {error.row}"
        problem = error.problem.removeprefix("the target's ")
        raise BadSignalsFile(
            f"{path.name}: {kind} are unfit: {problem}{where}", value=error.value, remedy=error.remedy
        ) from error
    return log_probs, np.max([each.rounding for each in found], axis=0)


def _labels(path: Path, given: NDArray[Any], samples: int, classes: int) -> IntArray:
    def fits(labels: NDArray[Any]) -> bool:
        whole = labels.dtype.kind in "iu" and labels.shape == (samples,)
        return whole and bool(((labels >= 0) & (labels < classes)).all())

    if not fits(given):
        raise BadSignalsFile(
            f"{path.name}: labels must be {samples} integers from 0 to {classes - 1}",
            value=_told(given),
            remedy=remedies.of_labels(given, classes, fits)
            or f"store for each sample the number of its class's column, from 0 to {classes - 1}",
        )
    return given.astype(np.int64)


def _booleans(path: Path, name: str, given: NDArray[Any], samples: int) -> BoolArray:
    def fits(flags: NDArray[Any]) -> bool:
        whole = flags.dtype.kind == "b" or (flags.dtype.kind in "iu" and bool(((flags == 0) | (flags == 1)).all()))
        return whole and flags.ndim in (1, 2) and len(flags) == samples

    if not fits(given):
        raise BadSignalsFile(
            f"{path.name}: {name} must be {samples} booleans, or integers 0 and 1",
            value=_told(given),
            remedy=remedies.of_flags(name, given, fits) or "store True for each sample that is one, False for others",
        )
    return given.astype(np.bool_)


def _told(given: NDArray[Any]) -> str:
    """An array in a few words: its type and shape, and the least and the largest of its values, or some of them."""
    about = f"{given.dtype}, shape {given.shape}"
    if given.dtype.kind in "iuf" and given.size:
        return f"{about}, from {given.min()} to {given.max()}"
    some = [str(each)[:20] for each in given.reshape(-1)[:3]]
    return f"{about}, such as {', '.join(map(ascii, some))}" if given.dtype.kind in "UT" and some else about


def _ids(path: Path, given: NDArray[Any] | None, samples: int) -> tuple[str, ...]:
    if given is None:
        return tuple(f"row {i}" for i in range(samples))
    if given.dtype.kind not in "iuUT" or given.shape != (samples,):
        raise BadSignalsFile(
            f"{path.name}: ids must be {samples} texts or integers",
            value=_told(given),
            remedy="store ids.astype(str)" if given.shape == (samples,) else "store one for each sample",
        )
    names = tuple(str(name) for name in given)
    if len(set(names)) < samples:
        twice = Counter(names).most_common(1)[0][0]
        raise BadSignalsFile(f"{path.name}: ids must be distinct, one each", value=twice, remedy="number them")
    return names


def _features(path: Path, given: NDArray[Any] | None, samples: int) -> FloatArray | None:
    if given is None:
        return None
    if given.dtype.kind not in "biuf" or given.ndim != 2 or len(given) != samples:
        raise BadSignalsFile(f"{path.name}: features must be (n, D)", value=given.shape, remedy="store numbers")
    features = given.astype(np.float64)
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise BadSignalsFile(
            f"{path.name}: features are not finite in row {row}, column {column}",
            value=features[row, column],
            remedy="leave the column out, or fill it",
        )
    return features
