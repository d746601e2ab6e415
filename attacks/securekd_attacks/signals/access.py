# ruff: noqa: S105 - the tokens here are those of texts
"""What an adversary sees of a set of records, and the names of the kinds of access that attacks declare."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.errors import MissingAccess, OverlappingRecords, ShapeMismatch, TooFewRecords

Given = TypeVar("Given")


class Access(StrEnum):
    """A kind of access to the target; each is the name of a field of `Signals`."""

    LOG_PROBS = "log_probs"
    """The natural logarithm of the probability of every class, for each record."""
    LABELS = "labels"
    """The true label of each record."""
    PREDICTED = "predicted"
    """The labels alone that the target gives to perturbed copies of each record."""
    FEATURES = "features"
    """Numbers that describe each record and come from no model."""
    REFERENCES = "references"
    """The scaled logit of each record under each of several reference models."""
    INCLUSION = "inclusion"
    """Which reference model was trained with which record."""
    TEXTS = "texts"
    """The texts themselves."""
    TOKEN_LOG_PROBS = "token_log_probs"
    """The log-probability of every token of each text."""
    TOKEN_MEANS = "token_means"
    """The mean of the next token's log-probability under the target itself, at every token."""
    TOKEN_DEVIATIONS = "token_deviations"
    """Its standard deviation, at every token."""
    REFERENCE_TOKEN_LOG_PROBS = "reference_token_log_probs"
    """The log-probability of every token of each text under a reference model."""
    NEIGHBOUR_LOSSES = "neighbour_losses"
    """The target's mean token loss on altered copies of each text."""


@dataclass(frozen=True, eq=False)
class Signals:
    """What is known of one side's records: all members, or all non-members.

    Attributes:
        log_probs: shape (n, C), natural logarithms; None where the target does not show them.
        labels: shape (n,), integers in [0, C); None where the adversary does not know them.
        record_ids: n distinct names or hashes of the records, by which the two sides are held apart; None where
            there are none, and then nobody can check that the sides do not overlap.
        predicted: shape (n, Q), integers: the target's label for each of Q perturbed copies of a record.
        features: shape (n, D), finite; what a classifier that never sees the model may know.
        references: shape (R, n), scaled logits (`signals.scaled_logit`) of the same records; may be memory-mapped.
        inclusion: shape (R, n), booleans: whether reference r was trained with record i.
        texts: n texts.
        token_log_probs: n arrays, each one text's, of any length.
        token_means: n arrays, as long as those of `token_log_probs`.
        token_deviations: n arrays, as long as those of `token_log_probs`.
        reference_token_log_probs: n arrays, of the reference's own tokens.
        neighbour_losses: shape (n, Q), in nats a token.
        rounding: shape (n,), no signal but a note: the step to which a record's probabilities had been rounded, where
            its row summed to one only up to that; 0 where it did. None where nobody looked.

    Raises:
        ShapeMismatch: the parts have different lengths.
        TooFewRecords: nothing was given.
        OverlappingRecords: a record's id occurs twice.
    """

    log_probs: NDArray[np.floating] | None = None
    labels: NDArray[np.integer] | None = None
    record_ids: Sequence[Hashable] | None = None
    predicted: NDArray[np.integer] | None = None
    features: NDArray[np.floating] | None = None
    references: NDArray[np.floating] | None = None
    inclusion: NDArray[np.bool_] | None = None
    texts: Sequence[str] | None = None
    token_log_probs: Sequence[NDArray[np.floating]] | None = None
    token_means: Sequence[NDArray[np.floating]] | None = None
    token_deviations: Sequence[NDArray[np.floating]] | None = None
    reference_token_log_probs: Sequence[NDArray[np.floating]] | None = None
    neighbour_losses: NDArray[np.floating] | None = None
    rounding: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        if not self.available:
            raise TooFewRecords("no signal was given", value="nothing", remedy="pass log_probs, labels or both")
        lengths = {self._records_of(access) for access in self.available}
        if self.record_ids is not None:
            lengths.add(len(self.record_ids))
        if len(lengths) > 1:
            raise ShapeMismatch("signals have different lengths", value=sorted(lengths), remedy="pass one per record")
        if self.record_ids is not None:
            seen: set[Hashable] = set()
            for record in self.record_ids:
                if record in seen:
                    raise OverlappingRecords("a record occurs twice on one side", value=record, remedy="keep it once")
                seen.add(record)

    @property
    def available(self) -> frozenset[Access]:
        """The kinds of access that these signals give."""
        return frozenset(access for access in Access if getattr(self, access.value) is not None)

    @property
    def records(self) -> int:
        """How many records these signals describe."""
        return self._records_of(min(self.available))

    def take(self, rows: NDArray[np.integer]) -> "Signals":
        """The signals of some records, in the order of `rows`."""
        parts: dict[str, Any] = {}
        for access in self.available:
            part = getattr(self, access.value)
            if access in _BY_MODEL:
                parts[access.value] = part[:, rows]
            elif isinstance(part, np.ndarray):
                parts[access.value] = part[rows]
            else:
                parts[access.value] = [part[int(row)] for row in rows]
        if self.record_ids is not None:
            parts["record_ids"] = [self.record_ids[int(row)] for row in rows]
        if self.rounding is not None:
            parts["rounding"] = self.rounding[rows]
        return Signals(**parts)

    def _records_of(self, access: Access) -> int:
        part = getattr(self, access.value)
        if access not in _BY_MODEL:
            return len(part)
        if np.ndim(part) != 2:
            raise ShapeMismatch(f"{access.value} must be a matrix", value=np.shape(part), remedy="pass (R, n)")
        return int(np.shape(part)[1])

    def require_log_probs(self, by: str) -> NDArray[np.floating]:
        """Give the log-probabilities, or raise MissingAccess in the name of the attack `by`."""
        return required(self.log_probs, Access.LOG_PROBS, by)

    def require_labels(self, by: str) -> NDArray[np.integer]:
        """Give the labels, or raise MissingAccess in the name of the attack `by`."""
        return required(self.labels, Access.LABELS, by)


def check_disjoint(members: Signals, nonmembers: Signals) -> None:
    """Make sure that no record is a member and a non-member at once.

    Sides without ids pass unchecked; ids on one side only are refused, since they promise a check that cannot be made.

    Raises:
        OverlappingRecords: a record's id is on both sides.
        ShapeMismatch: only one of the sides has ids.
    """
    if members.record_ids is None and nonmembers.record_ids is None:
        return
    if members.record_ids is None or nonmembers.record_ids is None:
        side = "members" if members.record_ids is None else "nonmembers"
        raise ShapeMismatch("only one side has record ids", value=f"none for {side}", remedy="pass both or neither")
    known = set(nonmembers.record_ids)
    shared = [record for record in members.record_ids if record in known]
    if shared:
        raise OverlappingRecords(
            f"{len(shared)} records are members and non-members at once",
            value=shared[0],
            remedy="take them from one side",
        )


def required(part: Given | None, access: Access, by: str) -> Given:
    """Give back a part of `Signals`, or raise MissingAccess in the name of the attack `by` where it is None."""
    if part is None:
        raise MissingAccess(
            f"the attack '{by}' needs {access.value}",
            value="none",
            remedy="give it, or choose an attack without this need",
        )
    return part


_BY_MODEL = frozenset({Access.REFERENCES, Access.INCLUSION})
"""The parts with a row for each model, and a column for each record."""
