"""What everybody must agree on before a session begins, and the proof that it is safe.

`SessionParameters` refuses unsafe values when it is built, so that every later module may rely on them. Its canonical
encoding, the caller's context and the server's nonce are hashed to the session id, which enters every key, tag and
signature: who was told other parameters takes part in another session.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from securekd_protocols.errors import (
    BadParameter,
    ContextMismatch,
    DuplicateKey,
    MalformedMessage,
    ThresholdUnsafe,
    TooFewClients,
    UnknownClient,
)
from securekd_protocols.keys import KEY_BYTES, Label
from securekd_protocols.ring import prove_no_overflow
from securekd_protocols.wire import Bytes, Reader, Writer

FEWEST_CLIENTS = 3
MOST_CLIENTS = 10_000
LONGEST_VECTOR = 2**28
LONGEST_NAME = 128
NONCE_BYTES = 32


def recommended_threshold(clients: int, colluders: int = 1) -> int:
    """The smallest safe threshold t, which tolerates the most dropouts: 2t > clients + colluders, and t ≥ 3.

    Two disjoint groups of honest clients, each with all colluders beside it, can then not both reach t, so that a
    server which tells them different things never holds both shares of one client (Bonawitz et al. 2017, section 6.2).

    Args:
        clients: How many are invited.
        colluders: How many of them may work with the server.

    Returns:
        The threshold.

    Raises:
        TooFewClients: Fewer than 3 clients.
        ThresholdUnsafe: No threshold up to `clients` is safe with so many colluders.
    """
    threshold = max(FEWEST_CLIENTS, (clients + colluders) // 2 + 1)
    check_threshold(clients, threshold, colluders)
    return threshold


def check_threshold(clients: int, threshold: int, colluders: int) -> None:
    """Refuse a threshold that does not protect.

    Raises:
        TooFewClients: Fewer than 3 clients.
        ThresholdUnsafe: See `recommended_threshold`; also where fewer than two honest clients could be left in a sum.
    """
    if clients < FEWEST_CLIENTS:
        raise TooFewClients(
            f"{clients} clients, and at least {FEWEST_CLIENTS} are needed",
            "invite more: of two clients, each learns the other's input from the sum",
        )
    stated = f"threshold {threshold} of {clients} clients with {colluders} colluders"
    if colluders < 0 or not FEWEST_CLIENTS <= threshold <= clients:
        raise ThresholdUnsafe(stated, f"choose a threshold from {FEWEST_CLIENTS} to {clients}, and colluders from 0 on")
    if 2 * threshold <= clients + colluders:
        raise ThresholdUnsafe(stated, f"raise the threshold to {(clients + colluders) // 2 + 1} or invite more clients")
    if threshold - colluders < 2:
        raise ThresholdUnsafe(stated, "leave at least two honest clients among the survivors: invite more clients")


@dataclass(frozen=True)
class Member:
    """One invited client.

    Attributes:
        name: What the caller calls it: 1 to 128 bytes of UTF-8.
        public: Its Ed25519 identity key, 32 bytes, which the other clients must have reason to trust.
    """

    name: str
    public: bytes


@dataclass(frozen=True)
class SessionParameters:
    """Everything that the participants of one session agree on.

    Attributes:
        roster: The invited clients, 3 to 10,000. A client's index is its place in this tuple.
        server_public: The server's Ed25519 identity key.
        threshold: Fewest clients that must last to every stage's end; 2·threshold > clients + colluders.
        colluders: How many clients may work with the server.
        vector_length: Entries of every input, 1 to 2^28.
        magnitude: Largest absolute value of an entry; clients × magnitude < 2^31.
        round_number: The caller's counter, 0 to 2^64 − 1.
        nonce: 32 bytes that the server draws for this session.
        context: SHA-256 (32 bytes) of whatever else clients must agree on; see `hash_context`.

    Raises:
        ProtocolError: On construction, one of `BadParameter`, `TooFewClients`, `ThresholdUnsafe`, `RingTooSmall`,
            `DuplicateKey`.
    """

    roster: tuple[Member, ...]
    server_public: bytes
    threshold: int
    colluders: int
    vector_length: int
    magnitude: int
    round_number: int
    nonce: bytes
    context: bytes

    def __post_init__(self) -> None:
        check_threshold(len(self.roster), self.threshold, self.colluders)
        _within("clients", len(self.roster), FEWEST_CLIENTS, MOST_CLIENTS)
        _within("vector length", self.vector_length, 1, LONGEST_VECTOR)
        _within("magnitude", self.magnitude, 1, 2**31 - 1)
        _within("round number", self.round_number, 0, 2**64 - 1)
        _sized("nonce", self.nonce, NONCE_BYTES)
        _sized("context hash", self.context, 32)
        prove_no_overflow(len(self.roster), self.magnitude)
        self._check_roster()

    def _check_roster(self) -> None:
        for member in self.roster:
            _sized(f"identity key of {member.name!r}", member.public, KEY_BYTES)
            _within(f"bytes in the name {member.name!r}", len(member.name.encode()), 1, LONGEST_NAME)
        _sized("identity key of the server", self.server_public, KEY_BYTES)
        if len({member.name for member in self.roster}) < len(self.roster):
            raise BadParameter("two clients have the same name", "give each client a name of its own")
        if len({member.public for member in self.roster} | {self.server_public}) <= len(self.roster):
            raise DuplicateKey("an identity key stands on the roster twice", "invite each participant once")

    @property
    def clients(self) -> int:
        """How many clients are invited."""
        return len(self.roster)

    @cached_property
    def encoded(self) -> bytes:
        """The canonical encoding, which is also the body of the invitation."""
        writer = Writer().fixed(self.nonce).fixed(self.context).fixed(self.server_public)
        writer.integer(self.round_number, 8).integer(self.threshold, 2).integer(self.colluders, 2)
        writer.integer(self.vector_length, 4).integer(self.magnitude, 4).integer(self.clients, 2)
        for member in self.roster:
            writer.blob(member.name.encode()).fixed(member.public)
        return writer.finish()

    @classmethod
    def decode(cls, data: Bytes) -> SessionParameters:
        """Read the canonical encoding.

        Raises:
            MalformedMessage: It is none.
            ProtocolError: It is one, of parameters that are not safe.
        """
        reader = Reader(data, "session parameters")
        nonce, context, server = reader.fixed(NONCE_BYTES), reader.fixed(32), reader.fixed(KEY_BYTES)
        round_number, threshold, colluders = reader.integer(8), reader.integer(2), reader.integer(2)
        length, magnitude = reader.integer(4), reader.integer(4)
        roster = tuple(_read_member(reader) for _ in range(reader.count(MOST_CLIENTS, 4 + KEY_BYTES)))
        reader.finish()
        return cls(roster, server, threshold, colluders, length, magnitude, round_number, nonce, context)

    @cached_property
    def session_id(self) -> bytes:
        """SHA-256 over the version's label and everything above."""
        return hashlib.sha256(Label.SESSION.value + self.encoded).digest()

    def index_of(self, public: bytes) -> int:
        """The index of the client with this identity key.

        Raises:
            UnknownClient: It is not invited.
        """
        for index, member in enumerate(self.roster):
            if member.public == public:
                return index
        raise UnknownClient(f"identity {public.hex()} is not on the roster", "ask for an invitation with this identity")

    def check_context(self, context: bytes) -> None:
        """Refuse parameters that are for another context.

        Args:
            context: This client's own context, unhashed.

        Raises:
            ContextMismatch: Its hash differs; somebody would answer for other data than this client.
        """
        if hash_context(context) != self.context:
            raise ContextMismatch(
                f"the session's context hash is {self.context.hex()[:16]}…, ours {hash_context(context).hex()[:16]}…",
                "compare transfer set and class map with the other clients before taking part",
            )


def hash_context(context: bytes) -> bytes:
    """Hash the caller's context (for distillation: the transfer set's indices and the class map) to 32 bytes."""
    return hashlib.sha256(context).digest()


def _read_member(reader: Reader) -> Member:
    name = reader.blob(LONGEST_NAME)
    try:
        return Member(name.decode(), reader.fixed(KEY_BYTES))
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"a client's name {name!r} is no UTF-8", "have the invitation sent again") from error


def _within(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BadParameter(f"{what}: {value}", f"choose from {low} to {high}")


def _sized(what: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise BadParameter(f"{what} has {len(data)} bytes", f"pass exactly {size}")
