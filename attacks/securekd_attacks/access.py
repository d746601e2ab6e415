"""What an adversary sees of a set of records, and the names of the kinds of access that attacks declare."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.errors import MissingAccess, OverlappingRecords, ShapeMismatch, TooFewRecords


class Access(StrEnum):
    """A kind of access to the target; each is the name of a field of `Signals`."""

    LOG_PROBS = "log_probs"
    """The natural logarithm of the probability of every class, for each record."""
    LABELS = "labels"
    """The true label of each record."""


@dataclass(frozen=True, eq=False)
class Signals:
    """What is known of one side's records: all members, or all non-members.

    Attributes:
        log_probs: shape (n, C), natural logarithms; None where the target does not show them.
        labels: shape (n,), integers in [0, C); None where the adversary does not know them.
        record_ids: n distinct names or hashes of the records, by which the two sides are held apart; None where
            there are none, and then nobody can check that the sides do not overlap.

    Raises:
        ShapeMismatch: the parts have different lengths.
        TooFewRecords: nothing was given.
        OverlappingRecords: a record's id occurs twice.
    """

    log_probs: NDArray[np.floating] | None = None
    labels: NDArray[np.integer] | None = None
    record_ids: Sequence[Hashable] | None = None

    def __post_init__(self) -> None:
        parts = (self.log_probs, self.labels, self.record_ids)
        lengths = {len(part) for part in parts if part is not None}
        if not self.available:
            raise TooFewRecords("no signal was given", value="nothing", remedy="pass log_probs, labels or both")
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
        return len(next(part for part in (self.log_probs, self.labels) if part is not None))

    def require_log_probs(self, by: str) -> NDArray[np.floating]:
        """Give the log-probabilities, or raise MissingAccess in the name of the attack `by`."""
        if self.log_probs is None:
            raise _missing(Access.LOG_PROBS, by)
        return self.log_probs

    def require_labels(self, by: str) -> NDArray[np.integer]:
        """Give the labels, or raise MissingAccess in the name of the attack `by`."""
        if self.labels is None:
            raise _missing(Access.LABELS, by)
        return self.labels


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


def _missing(access: Access, by: str) -> MissingAccess:
    return MissingAccess(
        f"the attack '{by}' needs {access.value}", value="none", remedy="give it, or choose an attack without this need"
    )
