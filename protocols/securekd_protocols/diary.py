"""What one client remembers from session to session, so that many sums do not tell what one may not.

A sum hides its inputs; two sums over nearly the same clients do not hide their difference. If cohort B is cohort A
without one client, and inputs hardly change from round to round, the difference of the two sums is that client's input
(So et al. 2021, "Securing Secure Aggregation", section 3). A server chooses cohorts, and dropouts choose them too, so
the client that has to defend itself looks at each survivor set before it signs it, and refuses one that is too close to
an earlier one.

Two rules are offered. `smallest_difference` bounds the difference of any two sums. It says nothing about cleverer
combinations of three or more. `batches` does: if every cohort is a union of batches that never change, then every
linear combination of sums is constant on each batch, and nothing smaller than a batch can be singled out (section 4).

The diary also counts sessions for each round, since every restart gives the server another graph to choose from, and
remembers which survivor set it has signed in which session, so that a client restored from an old state does not sign
a second one. It is worth what its storage is worth: save it before sending what `MaskingClient.receive` returns, and
where no backup can roll it back together with the client.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from securekd_protocols.errors import (
    BadParameter,
    BadSavedState,
    CohortRefused,
    MalformedMessage,
    SignedBefore,
    TooManyRestarts,
)
from securekd_protocols.turns import TakesTurns, in_turn
from securekd_protocols.wire import Bytes, Reader, Writer

_MAGIC = b"SKDY\x01"
_LONGEST_NAME = 128
_MOST_NAMES = 10_000
_ID_BYTES = 32


@dataclass(frozen=True)
class CohortRule:
    """Which survivor sets a client takes part in.

    Attributes:
        smallest_difference: Two cohorts are equal, or at least this many clients are in one of them only.
        batches: Every cohort is a union of these; empty for no such rule. Disjoint sets of client names.
    """

    smallest_difference: int = 2
    batches: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        if self.smallest_difference < 1:
            raise BadParameter(f"smallest difference {self.smallest_difference}", "choose 1 (no rule) or more")
        if sum(map(len, self.batches)) != len(frozenset().union(*self.batches)):
            raise BadParameter("batches overlap", "put each client into one batch")

    def check(self, cohort: frozenset[str], earlier: Iterable[frozenset[str]]) -> None:
        """Refuse a cohort.

        Args:
            cohort: Names of the survivors whose sum is about to be opened.
            earlier: Cohorts whose sums may have been opened.

        Raises:
            CohortRefused: It is too close to an earlier one, or splits a batch.
        """
        for other in earlier:
            alone = cohort ^ other
            if alone and len(alone) < self.smallest_difference:
                raise CohortRefused(
                    f"the cohort differs from an earlier one by {len(alone)} clients only: {sorted(alone)}",
                    f"sit this round out; at least {self.smallest_difference} must differ, or none",
                )
        if self.batches:
            whole = frozenset().union(*(batch for batch in self.batches if batch <= cohort))
            if whole != cohort:
                raise CohortRefused(
                    f"clients {sorted(cohort - whole)} are in the cohort without the rest of their batch",
                    "sit this round out; a batch takes part as a whole",
                )


@dataclass
class Diary(TakesTurns):
    """A client's memory. Not for sharing between clients.

    Attributes:
        rule: Which cohorts are refused.
    """

    rule: CohortRule = CohortRule()
    _signed: dict[bytes, frozenset[str]] = field(default_factory=dict)
    _sessions: dict[int, set[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    @in_turn
    def begin(self, round_number: int, session_id: bytes, most: int) -> None:
        """Note that a session for a round begins.

        Args:
            round_number: The caller's counter.
            session_id: 32 bytes.
            most: Sessions that one round may take.

        Raises:
            TooManyRestarts: The round has had that many already.
        """
        sessions = self._sessions.setdefault(round_number, set())
        if session_id not in sessions and len(sessions) >= most:
            raise TooManyRestarts(
                f"round {round_number} has been started {len(sessions)} times", "give this round up, and ask why"
            )
        sessions.add(session_id)

    @in_turn
    def sign(self, session_id: bytes, cohort: frozenset[str]) -> None:
        """Note that this client is about to sign a survivor set; after that the sum may be opened.

        Args:
            session_id: 32 bytes.
            cohort: Names of the survivors.

        Raises:
            SignedBefore: Another set was signed in this session.
            CohortRefused: See `CohortRule`.
        """
        before = self._signed.get(session_id)
        if before == cohort:
            return
        if before is not None:
            raise SignedBefore("another survivor set was signed in this session", "never restore an older state")
        self.rule.check(cohort, self._signed.values())
        self._signed[session_id] = cohort

    @in_turn
    def save(self) -> bytes:
        """Everything noted so far, for `load`; the rule is not part of it. Nothing in it is secret."""
        writer = Writer().fixed(_MAGIC).integer(len(self._signed), 4)
        for session_id, cohort in sorted(self._signed.items()):
            writer.fixed(session_id).blobs([name.encode() for name in sorted(cohort)])
        writer.integer(len(self._sessions), 4)
        for number, sessions in sorted(self._sessions.items()):
            writer.integer(number, 8).integer(len(sessions), 2)
            for session_id in sorted(sessions):
                writer.fixed(session_id)
        return writer.finish()

    @classmethod
    def load(cls, data: Bytes, rule: CohortRule) -> Diary:
        """Read what `save` wrote.

        Raises:
            BadSavedState: It is something else.
        """
        reader = Reader(data, "diary")
        try:
            if reader.fixed(len(_MAGIC)) != _MAGIC:
                raise reader.malformed("it does not begin like a diary of this release")
            diary = cls(rule)
            for _ in range(reader.integer(4)):
                session_id = reader.fixed(_ID_BYTES)
                names = reader.blobs(_MOST_NAMES, _LONGEST_NAME)
                diary._signed[session_id] = frozenset(name.decode() for name in names)
            for _ in range(reader.integer(4)):
                number = reader.integer(8)
                diary._sessions[number] = {reader.fixed(_ID_BYTES) for _ in range(reader.count(2**16 - 1, _ID_BYTES))}
            reader.finish()
            if diary.save() != data:
                raise reader.malformed("its entries are out of order or repeated")
        except (MalformedMessage, UnicodeDecodeError) as error:
            raise BadSavedState(f"no diary: {error}", "restore the diary that belongs to this client") from error
        return diary
