"""What one client remembers from session to session, so that many sums do not tell what one may not.

A sum hides its inputs; two sums over nearly the same clients do not hide their difference. If cohort B is cohort A
without one client, and inputs hardly change from round to round, the difference of the two sums is that client's input
(So et al. 2021, "Securing Secure Aggregation", section 3). A server chooses cohorts, and dropouts choose them too, so
each client looks at a survivor set before it signs it, and refuses one that is too close to an earlier one.

By then its own input has been sent, masked, and its refusal stops nobody: the sum opens once `threshold` others have
signed. So clients protect each other, or nobody. In complete graphs of one roster and threshold, and if all honest
clients keep the rule in one diary each, any two survivor sets whose sums are opened differ by nothing or by
`smallest_difference` clients at least; 2·threshold − clients − colluders − 1 honest clients may be without it, and not
one more where the threshold is below the number of clients. Between rosters it holds where both thresholds together
exceed all clients of both, those who collude in either, and those without the rule, and no client checks that. It says
nothing about cleverer combinations of three sums or more. `batches` do: if every cohort is a union of batches that
never change, then every linear combination of sums is constant on each batch (section 4), and fewer than threshold −
colluders honest clients without the rule do no harm. In a k-regular graph a malicious server opens other sums than
those that clients sign for, and two sets may be signed by clients of whom none compares them, so that a rule would
protect nobody, and `LocalPolicy` refuses it there. SPEC.md, "Several sums", has the arguments.

The diary also counts the invitations that a client accepts in each round, since each gives the server another graph to
choose from, and notes under which transcript it sends each kind of message of a session, so that a client which is
restored from an old state tells no second story: it reveals, shares, masks and signs what it did before, or nothing.

It is worth what its storage is worth. A note has to be stored before the message that it is about is sent: give `keep`,
which is handed the bytes in time, or store `save()` before sending what `MaskingClient.receive` returns. And it has to
lie where no backup rolls it back together with the client, and be one object at a time: of two that were loaded from
the same bytes neither sees what the other notes. A client that is rolled back with its diary counts as a colluder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct

from securekd_protocols.errors import (
    AnsweredBefore,
    BadParameter,
    BadSavedState,
    CohortRefused,
    MalformedMessage,
    SignedBefore,
    TooManyRestarts,
)
from securekd_protocols.messages import Kind
from securekd_protocols.turns import TakesTurns, in_turn
from securekd_protocols.wire import Bytes, Reader, Writer

_MAGIC = b"SKDY\x02"
_WITHOUT_STORIES = b"SKDY\x01"  # of release 0.1: sessions by round, of which nothing more was noted
_LONGEST_NAME = 128
_MOST_NAMES = 10_000
_ID_BYTES = 32
_MOST_ACCEPTED = 2**16 - 1  # more than any policy allows in one round
_UNKNOWN = 2**16 - 1  # no client's index
_SENT = Struct("<B32s")  # kind and transcript of a message


@dataclass(frozen=True)
class CohortRule:
    """Which survivor sets a client signs; what that protects, and who else must have the rule, is said above.

    Clients are told apart by their names: a name stands for the same client in every session, and a client has one.

    Attributes:
        smallest_difference: Two cohorts are equal, or at least this many clients are in one of them only; 1 for no such
            rule, which limits nothing. Of so many clients two must be honest, so any other is at least two more than
            colluders.
        batches: Every cohort is a union of these; empty for no such rule. Disjoint sets of client names, each of at
            least two more than colluders.
    """

    smallest_difference: int = 3
    batches: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        if self.smallest_difference < 1:
            raise BadParameter(f"smallest difference {self.smallest_difference}", "choose 1 (no rule) or more")
        if sum(map(len, self.batches)) != len(frozenset().union(*self.batches)):
            raise BadParameter("batches overlap", "put each client into one batch")

    @property
    def limits(self) -> bool:
        """Whether there is any cohort that it refuses."""
        return self.smallest_difference > 1 or bool(self.batches)

    def check_colluders(self, colluders: int) -> None:
        """Refuse a rule by which a difference of sums could be that of one honest client among colluders.

        Args:
            colluders: How many clients may work with the server.

        Raises:
            BadParameter: A difference, or a batch, could be of fewer than two honest clients.
        """
        least = colluders + 2
        if 1 < self.smallest_difference < least:
            raise BadParameter(
                f"cohorts that differ by {self.smallest_difference} clients, of whom {colluders} may collude",
                f"choose a smallest difference of {least} or more, or 1 for no rule",
            )
        smallest = min(self.batches, key=len, default=None)
        if smallest is not None and len(smallest) < least:
            raise BadParameter(
                f"a batch of {sorted(smallest)}, of whom {colluders} may collude", f"batch {least} clients or more"
            )

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
                    f"leave the session: at least {self.smallest_difference} must differ, or none; unless every client "
                    "has this rule, the input may be in the sum all the same",
                )
        if self.batches:
            whole = frozenset().union(*(batch for batch in self.batches if batch <= cohort))
            if whole != cohort:
                raise CohortRefused(
                    f"clients {sorted(cohort - whole)} are in the cohort without the rest of their batch",
                    "leave the session: a batch takes part as a whole; unless every client has this rule, the input "
                    "may be in the sum all the same",
                )


@dataclass
class _Noted:
    """What is noted of one session: as whom, how often it was accepted, and each kind of message's transcript."""

    client: int
    accepted: int = 0
    story: dict[Kind, bytes] = field(default_factory=dict)


class Diary(TakesTurns):
    """A client's memory. Not for sharing between clients, and not to be copied or pickled, alone or in a policy.

    It grows by at most 250 bytes for each invitation accepted, of which there are as many a round as the policy allows,
    and by the survivors' names for each set signed; `forget` lets go of the former.

    Args:
        rule: Which cohorts are refused.
        keep: Called with the bytes of `save` after every note and before anything is sent that it is about, to store
            them. If it raises, nothing is sent.
    """

    def __init__(self, rule: CohortRule = CohortRule(), *, keep: Callable[[bytes], None] | None = None) -> None:
        super().__init__()
        self._rule, self._keep_bytes = rule, keep
        self._signed: dict[bytes, frozenset[str]] = {}
        self._rounds: dict[int, dict[bytes, _Noted]] = {}
        self._forgotten = 0

    def __eq__(self, other: object) -> bool:
        """Whether both know the same and refuse the same."""
        if not isinstance(other, Diary):
            return NotImplemented
        return (self._rule, self._written(_MAGIC)) == (other._rule, other._written(_MAGIC))

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def rule(self) -> CohortRule:
        """Which cohorts are refused."""
        return self._rule

    @in_turn
    def begin(self, round_number: int, session_id: bytes, most: int, *, client: int) -> None:
        """Note that an invitation is accepted, whether or not it was accepted before.

        Args:
            round_number: The caller's counter.
            session_id: 32 bytes.
            most: Invitations that may be accepted in one round.
            client: Whose diary it is, by its index in the session's roster.

        Raises:
            BadParameter: It is the diary of another client of this session, or the round is forgotten.
            TooManyRestarts: That many have been accepted already.
        """
        if round_number < self._forgotten:
            raise BadParameter(f"round {round_number}, which this diary has forgotten", "go on to a later round")
        sessions = self._rounds.setdefault(round_number, {})
        before = sum(noted.accepted for noted in sessions.values())
        if before >= most:
            raise TooManyRestarts(
                f"{before} invitations for round {round_number} have been accepted", "give this round up, and ask why"
            )
        noted = sessions.setdefault(session_id, _Noted(client))
        if noted.client != client:
            raise BadParameter(f"a diary that client {noted.client} has too", "give each client a diary of its own")
        noted.accepted += 1
        self._keep()

    @in_turn
    def answer(self, round_number: int, session_id: bytes, kind: Kind, transcript: bytes) -> None:
        """Note under which transcript a message of a session is about to be sent.

        Args:
            round_number: The session's.
            session_id: 32 bytes.
            kind: Of the message.
            transcript: 32 bytes.

        Raises:
            AnsweredBefore: One of this kind was sent under another transcript.
            BadSavedState: The session is not one that this diary knows.
        """
        story = self._noted(round_number, session_id).story
        if story.setdefault(kind, transcript) != transcript:
            raise AnsweredBefore(
                f"{kind.name} was sent in this session after another story than the one that is told now",
                "do not trust this server any further; restore the latest state, not an older one",
            )
        self._keep()

    @in_turn
    def check_restored(self, round_number: int, session_id: bytes, client: int, transcript: bytes) -> None:
        """Refuse a client's state that has come further than this diary, or that another client is in.

        A state in which the client has sent its first message alone shows only that the invitation was accepted.

        Args:
            round_number: Its session's.
            session_id: 32 bytes.
            client: Its index in the session's roster.
            transcript: What it has sent its latest message under.

        Raises:
            BadSavedState: The diary does not know of such a message, so it is older than the state, or another's.
        """
        noted = self._noted(round_number, session_id)
        if transcript not in noted.story.values():
            raise BadSavedState(
                "a saved client that has sent what its diary does not know of", "leave the session; keep the diary safe"
            )
        if noted.client != client:
            raise BadSavedState(
                f"client {client} was to be restored with the diary of client {noted.client}",
                "restore each client with its own",
            )

    def _noted(self, round_number: int, session_id: bytes) -> _Noted:
        noted = self._rounds.get(round_number, {}).get(session_id)
        if noted is None:
            raise BadSavedState(
                f"the diary knows of no session {session_id.hex()[:16]}… in round {round_number}",
                "leave the session; restore a client with the diary that it had",
            )
        return noted

    @in_turn
    def forget(self, before: int) -> None:
        """Let go of what is noted of earlier rounds, but for the survivor sets: no client of theirs can be restored.

        Args:
            before: The earliest round that is remembered. No invitation for an earlier one is accepted any more, since
                it would be counted from nothing.
        """
        self._forgotten = max(before, self._forgotten)
        self._rounds = {number: sessions for number, sessions in self._rounds.items() if number >= before}
        self._keep()

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
        before = self._signed.get(session_id, cohort)
        if before != cohort:
            raise SignedBefore("another survivor set was signed in this session", "never restore an older state")
        self._rule.check(cohort, self._signed.values())
        self._signed[session_id] = cohort
        self._keep()

    @in_turn
    def save(self) -> bytes:
        """Everything noted so far, for `load`; the rule is not part of it. Nothing in it is secret."""
        return self._written(_MAGIC)

    def _keep(self) -> None:
        if self._keep_bytes is not None:
            self._keep_bytes(self.save())

    def _written(self, magic: bytes) -> bytes:
        writer = Writer().fixed(magic).integer(len(self._signed), 4)
        for session_id, cohort in sorted(self._signed.items()):
            writer.fixed(session_id).blobs([name.encode() for name in sorted(cohort)])
        if magic == _MAGIC:
            writer.integer(self._forgotten, 8)
        writer.integer(len(self._rounds), 4)
        for number, sessions in sorted(self._rounds.items()):
            writer.integer(number, 8).integer(len(sessions), 2)
            for session_id, noted in sorted(sessions.items()):
                writer.fixed(session_id)
                if magic == _MAGIC:
                    writer.integer(noted.client, 2).integer(noted.accepted, 2).rows(_SENT, sorted(noted.story.items()))
        return writer.finish()

    @classmethod
    def load(cls, data: Bytes, rule: CohortRule, *, keep: Callable[[bytes], None] | None = None) -> Diary:
        """Read what `save` wrote, here or in release 0.1.

        That release did not note how often an invitation was accepted, nor any transcript, so no further invitation is
        accepted in a round that its diary names, and no session of it is gone on with. It named no rounds of complete
        graphs: change releases between two rounds.

        Args:
            data: The bytes.
            rule: Which cohorts are refused from now on.
            keep: See the class.

        Raises:
            BadSavedState: It is something else.
        """
        reader = Reader(data, "diary")
        try:
            magic = reader.fixed(len(_MAGIC))
            if magic not in (_MAGIC, _WITHOUT_STORIES):
                raise reader.malformed("it does not begin like a diary of this release, or of 0.1")
            diary = cls(rule, keep=keep)
            for _ in range(reader.integer(4)):
                session_id = reader.fixed(_ID_BYTES)
                names = reader.blobs(_MOST_NAMES, _LONGEST_NAME)
                diary._signed[session_id] = frozenset(name.decode() for name in names)
            if magic == _MAGIC:
                diary._forgotten = reader.integer(8)
            for _ in range(reader.integer(4)):
                sessions = diary._rounds.setdefault(reader.integer(8), {})
                for _ in range(reader.count(_MOST_ACCEPTED, _ID_BYTES)):
                    session_id = reader.fixed(_ID_BYTES)
                    sessions[session_id] = _read_noted(reader) if magic == _MAGIC else _Noted(_UNKNOWN, _MOST_ACCEPTED)
            reader.finish()
            if diary._written(magic) != data:
                raise reader.malformed("its entries are out of order or repeated")
        except (MalformedMessage, ValueError) as error:  # no UTF-8, no kind of message
            raise BadSavedState(f"no diary: {error}", "restore the diary that belongs to this client") from error
        return diary


def _read_noted(reader: Reader) -> _Noted:
    client, accepted = reader.integer(2), reader.integer(2)
    return _Noted(client, accepted, {Kind(kind): transcript for kind, transcript in reader.rows(len(Kind), _SENT)})
