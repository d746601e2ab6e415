"""What everybody must agree on before a session begins, and the proof that it is safe.

`SessionParameters` refuses unsafe values when it is built, so that every later module may rely on them. Its canonical
encoding, the caller's context and the server's nonce are hashed to the session id, which enters every key, tag and
signature: who was told other parameters takes part in another session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from securekd_protocols.errors import (
    BadParameter,
    ContextMismatch,
    DuplicateKey,
    MalformedMessage,
    ThresholdUnsafe,
    TooFewClients,
    UnknownClient,
)
from securekd_protocols.graph_rule import GraphChoice, GraphDemand, check_graph, fewest_honest
from securekd_protocols.keys import KEY_BYTES, Label
from securekd_protocols.ring import Ring, prove_no_overflow
from securekd_protocols.thresholds import FEWEST_CLIENTS, check_threshold
from securekd_protocols.wire import Bytes, Reader, Writer

MOST_CLIENTS = 10_000
LONGEST_VECTOR = 2**28
LONGEST_NAME = 128
NONCE_BYTES = 32


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
class RegularGraph:
    """That a session's clients share masks along a k-regular graph, and what it has to withstand; see `graph_rule`.

    Attributes:
        degree: k, neighbours of each client.
        dropouts: D, clients that may fall silent: of fewer than clients − D survivors no client signs the list.
        malicious_server: Whether the threshold is the one that withstands a server which departs from the protocol.
        restarts: Invitations that a client accepts in one round at most; log₂ of it is added to σ. Each client's own
            policy says how many those are, and refuses a graph for fewer.
    """

    degree: int
    dropouts: int
    malicious_server: bool = True
    restarts: int = 16


@dataclass(frozen=True)
class SessionParameters:
    """Everything that the participants of one session agree on.

    Attributes:
        roster: The invited clients, 3 to 10,000. A client's index is its place in this tuple.
        server_public: The server's Ed25519 identity key.
        threshold: In a complete graph, fewest clients that must last to every stage's end, with
            2·threshold > clients + colluders; in a k-regular graph, fewest neighbours of each client.
        colluders: How many clients may work with the server.
        vector_length: Entries of every input, 1 to 2^28.
        magnitude: Largest absolute value of an entry before noise; clients × (magnitude + noise_tail) < 2^(bits−1).
        round_number: The caller's counter, 0 to 2^64 − 1.
        nonce: 32 bytes that the server draws for this session.
        context: SHA-256 (32 bytes) of whatever else clients must agree on; see `hash_context`.
        graph: How a k-regular graph is made, or `None` for the complete graph.
        ring_bits: 16, 24, 32 or 64; see `ring`.
        noise_tail: Largest absolute value of the integer noise that a client adds to an entry; 0 where none is added.
        noise_variance: Least variance of that noise in each entry, in squared steps, rounded down. Nobody can see
            whether it was added: it is what clients promise each other.

    Raises:
        ProtocolError: On construction, one of `BadParameter`, `TooFewClients`, `ThresholdUnsafe`, `GraphUnsafe`,
            `RingTooSmall`, `DuplicateKey`.
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
    graph: RegularGraph | None = None
    ring_bits: int = 32
    noise_tail: int = 0
    noise_variance: int = 0

    def __post_init__(self) -> None:
        self._check_graph()
        check_terms(self, 2**63 - 1)
        prove_no_overflow(self.ring, self.clients, self.magnitude, self.noise_tail)
        check_roster(self.roster, {"server": self.server_public})

    def _check_graph(self) -> None:
        if self.graph is None:
            check_threshold(self.clients, self.threshold, self.colluders)
            return
        if self.clients < FEWEST_CLIENTS:
            raise TooFewClients(f"{self.clients} clients", f"invite at least {FEWEST_CLIENTS}")
        within("restarts", self.graph.restarts, 1, 2**16 - 1)
        check_graph(self._demand(self.graph), GraphChoice(self.graph.degree, self.threshold))
        if self.fewest_survivors - self.colluders < 2:
            raise ThresholdUnsafe(
                f"{self.fewest_survivors} survivors with {self.colluders} colluders", "leave two honest ones in the sum"
            )

    def _demand(self, graph: RegularGraph) -> GraphDemand:
        return GraphDemand(self.clients, self.colluders, graph.dropouts, graph.malicious_server, graph.restarts)

    @property
    def clients(self) -> int:
        """How many clients are invited."""
        return len(self.roster)

    @cached_property
    def ring(self) -> Ring:
        """Where inputs, masks and the sum live."""
        return Ring(self.ring_bits)

    @property
    def bound(self) -> int:
        """Largest absolute value of an input's entry, noise included."""
        return self.magnitude + self.noise_tail

    @property
    def fewest_survivors(self) -> int:
        """Fewest survivors that clients sign for; see `fewest_honest` for how many inputs are in a sum."""
        return self.threshold if self.graph is None else self.clients - self.graph.dropouts

    @property
    def fewest_honest(self) -> int:
        """Fewest honest inputs in any sum that this session can open, whatever the server does: scale noise for these.

        threshold − colluders in a complete graph. In a k-regular one see `graph_rule.fewest_honest`: against a
        malicious server it is two or three, since it may open a sum for each part of the ring, and those who are
        corrupt, or are restored without their diary, must not be chosen after the graph is known.

        Of one session: where one noisy vector is given to two, the difference of their sums holds the noise of fewer,
        without a cohort rule that of one client. Draw noise anew for each session, and account for each.
        """
        if self.graph is None:
            return self.threshold - self.colluders
        return fewest_honest(self._demand(self.graph), GraphChoice(self.graph.degree, self.threshold))

    @cached_property
    def encoded(self) -> bytes:
        """The canonical encoding, which is also the body of the invitation."""
        writer = Writer().fixed(self.nonce).fixed(self.context).fixed(self.server_public)
        writer.integer(self.round_number, 8).integer(self.threshold, 2).integer(self.colluders, 2)
        writer.integer(self.vector_length, 4).integer(self.magnitude, 8).integer(self.noise_tail, 8)
        writer.integer(self.noise_variance, 8).integer(self.ring_bits, 1)
        graph = self.graph or RegularGraph(0, 0, False, 0)
        writer.integer(graph.degree, 2).integer(graph.dropouts, 2).integer(graph.restarts, 2)
        writer.integer(graph.malicious_server, 1)
        write_roster(writer, self.roster)
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
        length, magnitude, tail, variance = reader.integer(4), reader.integer(8), reader.integer(8), reader.integer(8)
        bits, graph = reader.integer(1), _read_graph(reader)
        roster = read_roster(reader)
        reader.finish()
        base = (roster, server, threshold, colluders, length, magnitude, round_number, nonce, context)
        return cls(*base, graph, bits, tail, variance)

    @cached_property
    def session_id(self) -> bytes:
        """SHA-256 over the version's label and everything above."""
        return hashlib.sha256(Label.SESSION.value + self.encoded).digest()

    def index_of(self, public: bytes) -> int:
        """The index of the client with this identity key.

        Raises:
            UnknownClient: It is not invited.
        """
        return index_on(self.roster, public)

    def check_context(self, context: bytes) -> None:
        """Refuse parameters that are for another context.

        Args:
            context: This client's own context, unhashed.

        Raises:
            ContextMismatch: Its hash differs; somebody would answer for other data than this client.
        """
        check_context(self.context, context)


class Terms(Protocol):
    """What the parameters of every protocol have in common; see `SessionParameters` for the meanings."""

    @property
    def clients(self) -> int: ...  # noqa: D102
    @property
    def vector_length(self) -> int: ...  # noqa: D102
    @property
    def magnitude(self) -> int: ...  # noqa: D102
    @property
    def noise_tail(self) -> int: ...  # noqa: D102
    @property
    def noise_variance(self) -> int: ...  # noqa: D102
    @property
    def round_number(self) -> int: ...  # noqa: D102
    @property
    def nonce(self) -> bytes: ...  # noqa: D102
    @property
    def context(self) -> bytes: ...  # noqa: D102


def check_terms(terms: Terms, largest: int) -> None:
    """Refuse numbers and bytes out of their ranges with `BadParameter`; magnitude and tail go up to `largest`."""
    within("clients", terms.clients, FEWEST_CLIENTS, MOST_CLIENTS)
    within("vector length", terms.vector_length, 1, LONGEST_VECTOR)
    within("magnitude", terms.magnitude, 1, largest)
    within("noise tail", terms.noise_tail, 0, largest)
    within("noise variance", terms.noise_variance, 0, 2**64 - 1)
    within("round number", terms.round_number, 0, 2**64 - 1)
    sized("nonce", terms.nonce, NONCE_BYTES)
    sized("context hash", terms.context, 32)


def check_roster(roster: tuple[Member, ...], others: Mapping[str, bytes]) -> None:
    """Refuse a roster on which somebody stands twice or has no usable name.

    Args:
        roster: The clients.
        others: Identity keys of the other participants, by role.

    Raises:
        BadParameter: A name or a key of the wrong size, or a name that occurs twice.
        DuplicateKey: A key that occurs twice.
    """
    for member in roster:
        sized(f"identity key of {member.name!r}", member.public, KEY_BYTES)
        within(f"bytes in the name {member.name!r}", len(member.name.encode()), 1, LONGEST_NAME)
    for role, public in others.items():
        sized(f"identity key of the {role}", public, KEY_BYTES)
    if len({member.name for member in roster}) < len(roster):
        raise BadParameter("two clients have the same name", "give each client a name of its own")
    if len({member.public for member in roster} | set(others.values())) < len(roster) + len(others):
        raise DuplicateKey("an identity key stands on the roster twice", "invite each participant once")


def index_on(roster: tuple[Member, ...], public: bytes) -> int:
    """The index of the client with this identity key, or `UnknownClient`."""
    for index, member in enumerate(roster):
        if member.public == public:
            return index
    raise UnknownClient(f"identity {public.hex()} is not on the roster", "ask for an invitation with this identity")


def check_context(hashed: bytes, context: bytes) -> None:
    """Refuse a context whose hash is another one, with `ContextMismatch`."""
    if hash_context(context) != hashed:
        raise ContextMismatch(
            f"the session's context hash is {hashed.hex()[:16]}…, ours {hash_context(context).hex()[:16]}…",
            "compare what was agreed on with the other clients before taking part",
        )


def write_roster(writer: Writer, roster: tuple[Member, ...]) -> None:
    """Append a count and each client's name and key."""
    writer.integer(len(roster), 2)
    for member in roster:
        writer.blob(member.name.encode()).fixed(member.public)


def read_roster(reader: Reader) -> tuple[Member, ...]:
    """Read what `write_roster` wrote, or raise `MalformedMessage`."""
    return tuple(_read_member(reader) for _ in range(reader.count(MOST_CLIENTS, 4 + KEY_BYTES)))


def hash_context(context: bytes) -> bytes:
    """Hash the caller's context (in securekd: a digest of the agreement and of what is asked) to 32 bytes."""
    return hashlib.sha256(context).digest()


def _read_graph(reader: Reader) -> RegularGraph | None:
    degree, dropouts, restarts, malicious = reader.integer(2), reader.integer(2), reader.integer(2), reader.integer(1)
    if malicious > 1 or (not degree and (dropouts or restarts or malicious)):
        raise reader.malformed(f"degree {degree} with {dropouts} dropouts, {restarts} restarts, server {malicious}")
    return RegularGraph(degree, dropouts, bool(malicious), restarts) if degree else None


def _read_member(reader: Reader) -> Member:
    name = reader.blob(LONGEST_NAME)
    try:
        return Member(name.decode(), reader.fixed(KEY_BYTES))
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"a client's name {name!r} is no UTF-8", "have the invitation sent again") from error


def within(what: str, value: int, low: int, high: int) -> None:
    """Refuse a number outside a range with `BadParameter`."""
    if not low <= value <= high:
        raise BadParameter(f"{what}: {value}", f"choose from {low} to {high}")


def sized(what: str, data: bytes, size: int) -> None:
    """Refuse bytes of another size with `BadParameter`."""
    if len(data) != size:
        raise BadParameter(f"{what} has {len(data)} bytes", f"pass exactly {size}")
