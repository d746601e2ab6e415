"""Two ends and the wire between them, for tests that want to see, change or lose single messages."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from securekd_protocols.books import FrameList, KeyBook
from securekd_protocols.frame import FRAME_IN_LIST, SERVER, TAGGED, Header, parse_frame, seal_frame, seal_tagged_frame
from securekd_protocols.keys import Identity
from securekd_protocols.masking.client import MaskingClient
from securekd_protocols.masking.server import MaskingServer, Outgoing
from securekd_protocols.masking.session import limits_of
from securekd_protocols.messages import Kind
from securekd_protocols.parameters import Member, RegularGraph, SessionParameters, hash_context
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.randomness import InsecureSeededRandomness
from securekd_protocols.states import ServerState
from securekd_protocols.thresholds import recommended_threshold

# What the rule gives for one colluder, and one or two dropouts, against a malicious server with 16 restarts.
SMALL_RING, SMALL_RING_THRESHOLD = RegularGraph(degree=4, dropouts=1), 3
WIDE_RING, WIDE_RING_THRESHOLD = RegularGraph(degree=6, dropouts=2), 4


class Recorder:
    """Writes down what a source of randomness gave."""

    def __init__(self, source) -> None:
        self._source = source
        self.given = b""

    def __call__(self, size: int) -> bytes:
        data = self._source(size)
        self.given += data
        return data


class Session:
    """A session of n clients, taken forward one stage at a time."""

    def __init__(
        self,
        n: int = 5,
        d: int = 8,
        *,
        magnitude: int = 100,
        colluders: int = 1,
        threshold: int | None = None,
        graph: RegularGraph | None = None,
        policies: dict[int, dict] | None = None,
        ring_bits: int = 32,
        noise_tail: int = 0,
        contexts: dict[int, bytes] | None = None,
        seed: bytes = b"",
        record: bool = False,
    ) -> None:
        self.random = InsecureSeededRandomness(seed)
        self.streams: dict[str, Recorder] = {}
        self.server_log: list[bytes | None] = []  # what the server was given; None where a stage was closed
        self.identities = [Identity.generate(self.random) for _ in range(n)]
        self.operator = Identity.generate(self.random)
        roster = tuple(Member(f"client {i}", identity.public) for i, identity in enumerate(self.identities))
        self.parameters = SessionParameters(
            roster=roster,
            server_public=self.operator.public,
            threshold=recommended_threshold(n, colluders) if threshold is None else threshold,
            colluders=colluders,
            vector_length=d,
            magnitude=magnitude,
            round_number=7,
            nonce=self.random(32),
            context=hash_context(b"digits"),
            graph=graph,
            ring_bits=ring_bits,
            noise_tail=noise_tail,
        )
        self.limits = limits_of(self.parameters)
        known = {member.name: member.public for member in roster}
        contexts = contexts or {}
        self.clients = [
            MaskingClient(
                identity,
                LocalPolicy(
                    self.operator.public, known, contexts.get(i, b"digits"), 7, colluders, **(policies or {}).get(i, {})
                ),
                insecure_randomness_for_tests=self._stream(f"client {i}", record),
            )
            for i, identity in enumerate(self.identities)
        ]
        self.server = MaskingServer(
            self.parameters, self.operator, insecure_randomness_for_tests=self._stream("server", record)
        )
        self.vectors = [np.random.default_rng(i).integers(-magnitude, magnitude + 1, d) for i in range(n)]
        invitation = self.server.invitation()
        self.inbox = [Outgoing(i, invitation) for i in range(n)]
        self.sent: list[bytes] = []
        self.down: dict[int, list[bytes]] = {}

    def _stream(self, name: str, record: bool):
        """One source for everybody, or for each participant its own, which is written down."""
        if not record:
            return self.random
        self.streams[name] = Recorder(InsecureSeededRandomness(name.encode()))
        return self.streams[name]

    def to_server(self, data: bytes) -> list[Outgoing]:
        self.server_log.append(data)
        return self.server.receive(data)

    def close(self) -> list[Outgoing]:
        self.server_log.append(None)
        return self.server.close_phase()

    def answers(self, silent: Collection[int] = ()) -> list[bytes]:
        """Deliver the inbox to all but the silent clients; give their answers."""
        answers = []
        for message in self.inbox:
            if message.recipient not in silent:
                self.down.setdefault(message.recipient, []).append(message.data)
                answers += self.clients[message.recipient].receive(message.data)
                if Kind(message.data[5]) is Kind.INVITATION:
                    self.clients[message.recipient].submit(self.vectors[message.recipient])
        self.inbox = []
        return answers

    def stage(self, silent: Collection[int] = ()) -> list[bytes]:
        """Live through one stage; give the clients' answers."""
        before, answers = self.server.state, self.answers(silent)
        self.sent += answers
        for data in answers:
            self.inbox += self.to_server(data)
        if self.server.state is before:
            self.inbox += self.close()
        return answers

    def until(self, state: ServerState) -> Session:
        """Live through stages without dropouts until the server collects `state`."""
        while self.server.state is not state:
            self.stage()
        return self

    def forged(self, kind: Kind, body: bytes, transcript: bytes) -> bytes:
        """A frame that the server itself, turned malicious, has signed."""
        return seal_frame(Header(kind, SERVER, self.parameters.session_id, transcript), body, self.operator)

    def signed_by(self, client: int, kind: Kind, body: bytes, transcript: bytes) -> bytes:
        """A frame that a malicious client has signed, or tagged for the server."""
        header = Header(kind, client, self.parameters.session_id, transcript)
        if kind in TAGGED:
            return seal_tagged_frame(header, (body,), self.server._collected.secret_with(client))
        return seal_frame(header, body, self.identities[client])

    def transcript_of(self, data: bytes) -> bytes:
        return parse_frame(data, self.limits).header.transcript

    def body_of(self, data: bytes) -> bytes:
        return bytes(parse_frame(data, self.limits).body)

    def proof(self, frames: list[bytes]) -> bytes:
        """A consistency proof, or key book, made of these frames and signed by the server."""
        frames = sorted(frames, key=lambda data: parse_frame(data, self.limits).header.sender)
        kind = Kind.KEY_BOOK if frames[0][5] == Kind.ADVERTISE else Kind.CONSISTENCY_PROOF
        book = FrameList(tuple(frames))
        if kind is Kind.KEY_BOOK:
            book = KeyBook(self.server._collected.session_key.public, (), tuple(frames))
        return self.forged(kind, book.encode(), self.transcript_of(frames[0]))

    def frames_in(self, data: bytes) -> tuple[bytes, ...]:
        """The client frames that a key book or a proof passes on."""
        body = self.body_of(data)
        if data[5] == Kind.KEY_BOOK:
            return KeyBook.decode(body, self.limits, FRAME_IN_LIST).frames
        return FrameList.decode(body, self.limits, FRAME_IN_LIST).frames

    def expected(self, survivors: Collection[int]) -> np.ndarray:
        return np.sum([self.vectors[i] for i in survivors], axis=0)


def message_to(client: int, outgoing: list[Outgoing]) -> bytes:
    return next(message.data for message in outgoing if message.recipient == client)
