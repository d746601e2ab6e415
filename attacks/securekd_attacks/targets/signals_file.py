"""Signals that were computed elsewhere, in a file: sample × model log-probabilities, who was a member, labels.

A `.npz` file (arrays) or a `.parquet` file (columns of the same names, a row for each sample, lists in cells) holds

- one of `log_probs`, `probs` or `logits`: (n, C) of one model, or (n, M, C) of several, the target first;
- `membership`: booleans, or the integers 0 and 1, (n,) or (n, M): whether each model was trained with the sample;
- `labels`: integers (n,);

and, if wanted, `ids` (n,), names of the samples; `features` (n, D), numbers that come from no model, for the blind
baseline; `population` (n,), as `membership`: non-members that attacks learn from, and that are not scored.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.access import Signals
from securekd_attacks.errors import BadLabels, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.references import BoolArray
from securekd_attacks.signals import scaled_logit
from securekd_attacks.targets import array_files, reading
from securekd_attacks.targets.errors import BadAnswer, BadSignalsFile
from securekd_attacks.targets.features import record_features
from securekd_attacks.targets.records import Records, joined
from securekd_attacks.targets.sides import References, Sides, shadow_signals

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
        kinds = [name for name in reading.OUTPUT_KINDS if name in found]
        unknown = sorted(found.keys() - _KNOWN)
        if len(kinds) != 1 or unknown or not {"membership", "labels"} <= found.keys():
            raise BadSignalsFile(
                f"{path.name} does not hold what a signals file does",
                value=", ".join(sorted(found)),
                remedy="store one of log_probs, probs, logits, and membership and labels; see securekd audit --help",
            )
        log_probs, rounding = _log_probs(path, kinds[0], found[kinds[0]])
        samples, models, classes = log_probs.shape
        labels = _labels(path, found["labels"], samples, classes)
        membership = _booleans(path, "membership", found["membership"], samples)
        membership = membership.reshape(samples, -1)
        if membership.shape != (samples, models):
            raise BadSignalsFile(
                f"{path.name}: membership and models disagree", value=(membership.shape, models), remedy="one for each"
            )
        population = _booleans(path, "population", found.get("population", np.zeros(samples, dtype=bool)), samples)
        if population.ndim != 1 or bool((population & membership[:, 0]).any()):
            raise BadSignalsFile(f"{path.name}: a member in the population", value="True", remedy="take it out")
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


def _log_probs(path: Path, kind: str, given: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Of all models, and the coarsest rounding of each sample."""
    array = given[:, None, :] if given.ndim == 2 else given
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise BadSignalsFile(
            f"{path.name}: {kind} must be floats (n, C) or (n, M, C)", value=(given.shape, given.dtype), remedy="do so"
        )
    try:
        models = range(array.shape[1])
        found = [reading.distributions(kind, array[:, model].astype(np.float64), len(array)) for model in models]
        log_probs = np.stack([each.log_probs for each in found], axis=1)
    except (BadAnswer, ValueError) as error:
        raise BadSignalsFile(f"{path.name}: {kind} are unfit", value=error, remedy="look into them") from error
    return log_probs, np.max([each.rounding for each in found], axis=0)


def _labels(path: Path, given: NDArray[Any], samples: int, classes: int) -> IntArray:
    if given.dtype.kind not in "iu" or given.shape != (samples,) or not bool(((given >= 0) & (given < classes)).all()):
        raise BadSignalsFile(
            f"{path.name}: labels must be {samples} integers from 0 to {classes - 1}",
            value=(given.dtype, given.shape, given.min() if given.size else None, given.max() if given.size else None),
            remedy="store class indices, as labels.astype(int)",
        )
    return given.astype(np.int64)


def _booleans(path: Path, name: str, given: NDArray[Any], samples: int) -> BoolArray:
    whole = given.dtype.kind in "iu" and bool(((given == 0) | (given == 1)).all())
    if not (whole or given.dtype.kind == "b") or given.ndim not in (1, 2) or len(given) != samples:
        raise BadSignalsFile(
            f"{path.name}: {name} must be {samples} booleans, or integers 0 and 1",
            value=(given.dtype, given.shape),
            remedy=f"store {name}.astype(bool)",
        )
    return given.astype(np.bool_)


def _ids(path: Path, given: NDArray[Any] | None, samples: int) -> tuple[str, ...]:
    if given is None:
        return tuple(f"row {i}" for i in range(samples))
    if given.dtype.kind not in "iuUT" or given.shape != (samples,):
        raise BadSignalsFile(
            f"{path.name}: ids must be {samples} texts or integers",
            value=(given.dtype, given.shape),
            remedy="store ids.astype(str)",
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
