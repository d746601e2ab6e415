"""Two ends and the wire between them, for tests that want to see, change or lose single messages."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from securekd_protocols.frame import SERVER, Header, parse_frame, seal_frame
from securekd_protocols.keys import Identity
from securekd_protocols.masking.client import MaskingClient
from securekd_protocols.masking.server import MaskingServer, Outgoing
from securekd_protocols.messages import FrameList, Kind, Limits
from securekd_protocols.parameters import Member, SessionParameters, hash_context, recommended_threshold
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.randomness import InsecureSeededRandomness
from securekd_protocols.states import ServerState


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
        contexts: dict[int, bytes] | None = None,
        seed: bytes = b"",
    ) -> None:
        self.random = InsecureSeededRandomness(seed)
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
        )
        self.limits = Limits(n, d)
        known = {member.name: member.public for member in roster}
        contexts = contexts or {}
        self.clients = [
            MaskingClient(
                identity,
                LocalPolicy(self.operator.public, known, contexts.get(i, b"digits"), 7, colluders),
                insecure_randomness_for_tests=self.random,
            )
            for i, identity in enumerate(self.identities)
        ]
        self.server = MaskingServer(self.parameters, self.operator)
        self.vectors = [np.random.default_rng(i).integers(-magnitude, magnitude + 1, d) for i in range(n)]
        invitation = self.server.invitation()
        self.inbox = [Outgoing(i, invitation) for i in range(n)]
        self.sent: list[bytes] = []

    def answers(self, silent: Collection[int] = ()) -> list[bytes]:
        """Deliver the inbox to all but the silent clients; give their answers."""
        answers = []
        for message in self.inbox:
            if message.recipient not in silent:
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
            self.inbox += self.server.receive(data)
        if self.server.state is before:
            self.inbox += self.server.close_phase()
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
        """A frame that a malicious client has signed."""
        return seal_frame(Header(kind, client, self.parameters.session_id, transcript), body, self.identities[client])

    def transcript_of(self, data: bytes) -> bytes:
        return parse_frame(data, self.limits).header.transcript

    def body_of(self, data: bytes) -> bytes:
        return bytes(parse_frame(data, self.limits).body)

    def proof(self, frames: list[bytes]) -> bytes:
        """A consistency proof, or key book, made of these frames and signed by the server."""
        frames = sorted(frames, key=lambda data: parse_frame(data, self.limits).header.sender)
        kind = Kind.KEY_BOOK if frames[0][5] == Kind.ADVERTISE else Kind.CONSISTENCY_PROOF
        return self.forged(kind, FrameList(tuple(frames)).encode(), self.transcript_of(frames[0]))

    def expected(self, survivors: Collection[int]) -> np.ndarray:
        return np.sum([self.vectors[i] for i in survivors], axis=0)


def message_to(client: int, outgoing: list[Outgoing]) -> bytes:
    return next(message.data for message in outgoing if message.recipient == client)
