"""What the server has collected in one session, and what it makes of it.

`take` decodes and keeps one genuine answer, and raises before it changes anything; the `…_for` functions build what a
client is to read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from securekd_protocols.books import CommitBook, FrameList, KeyBook, Revealed
from securekd_protocols.errors import BrokenCommitment, MalformedMessage, OutOfOrder, TamperedInput
from securekd_protocols.frame import Frame
from securekd_protocols.graph import CompleteGraph, Graph, graph_seed, ring_graph
from securekd_protocols.keys import AgreementKey, Binding, commit_to_reveal, input_tag_holds
from securekd_protocols.masking.secrets import check_advertise
from securekd_protocols.masking.session import limits_of
from securekd_protocols.messages import (
    Advertise,
    Box,
    Commit,
    Consistency,
    Kind,
    Limits,
    MaskedInput,
    ShareDelivery,
    Shares,
    Unmask,
)
from securekd_protocols.parameters import SessionParameters
from securekd_protocols.ring import Words

_DROP = "drop the message"


@dataclass
class Collected:
    """A server's memory of one session.

    Attributes:
        parameters: What clients were asked to agree on.
        session_key: X25519, for the tags of what clients tell the server alone.
        total: Sum of what has come in, in the ring.
        commitments: To the graph seed, by client.
        advertised: Keys by client.
        key_owners: Client by key, to find duplicates.
        secrets: Raw secrets shared with clients, as far as they were needed.
        frames: Whole frames that other clients will verify, by sender.
        graph: Who deals with whom; known after the advertise stage.
        boxes: Sealed shares by recipient, and for each by sender.
        binding: What masks are derived for; known after the share stage.
        sharers: Whose shares were delivered.
        survivors: Whose inputs are in the sum.
        unmask: Last answers by sender.
    """

    parameters: SessionParameters
    session_key: AgreementKey
    total: Words
    commitments: dict[int, bytes] = field(default_factory=dict)
    advertised: dict[int, Advertise] = field(default_factory=dict)
    key_owners: dict[bytes, int] = field(default_factory=dict)
    secrets: dict[int, bytes] = field(default_factory=dict, repr=False)
    frames: dict[int, bytes] = field(default_factory=dict)
    graph: Graph = field(default_factory=lambda: CompleteGraph(0))
    boxes: dict[int, dict[int, bytes]] = field(default_factory=dict)
    binding: Binding = field(default_factory=lambda: Binding(b"", b""))
    sharers: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()
    unmask: dict[int, Unmask] = field(default_factory=dict)

    @classmethod
    def begin(cls, parameters: SessionParameters, session_key: AgreementKey) -> Collected:
        """The memory of a server to which nobody has answered yet."""
        total = np.zeros(parameters.vector_length, parameters.ring.word)
        return cls(parameters, session_key, total, graph=CompleteGraph(parameters.clients))

    @cached_property
    def limits(self) -> Limits:
        """How large messages can be."""
        return limits_of(self.parameters)

    def take(self, frame: Frame, whole: bytes) -> None:
        """Decode and keep one answer.

        Args:
            frame: Genuine, and due.
            whole: Its bytes, where other clients will want to verify it.

        Raises:
            RemoteProtocolError: It is wrong in itself; nothing is changed.
        """
        sender, body = frame.header.sender, frame.body
        match frame.header.kind:
            case Kind.COMMIT:
                self.commitments[sender] = Commit.decode(body, self.limits).commitment
            case Kind.ADVERTISE:
                self._take_advertise(sender, Advertise.decode(body, self.limits), whole)
            case Kind.SHARES:
                self._take_shares(sender, Shares.decode(body, self.limits).boxes)
            case Kind.MASKED_INPUT:
                self._take_input(sender, MaskedInput.decode(body, self.limits))
            case Kind.CONSISTENCY:
                Consistency.decode(body, self.limits)
                self.frames[sender] = whole
            case _:
                self._take_unmask(sender, Unmask.decode(body, self.limits))

    def secret_with(self, client: int) -> bytes:
        """The raw secret that the server shares with a client.

        Raises:
            OutOfOrder: It has not advertised a key.
        """
        if client not in self.advertised:
            raise OutOfOrder(f"a message under a key that client {client} has not advertised", _DROP)
        if client not in self.secrets:
            self.secrets[client] = self.session_key.agree(self.advertised[client].share_key)
        return self.secrets[client]

    def _take_advertise(self, sender: int, message: Advertise, whole: bytes) -> None:
        if self.limits.regular:
            commitment = commit_to_reveal(self.parameters.session_id, sender, message.reveal)
            if commitment != self.commitments[sender]:
                raise BrokenCommitment(f"client {sender} reveals something else than it committed to", _DROP)
        check_advertise(sender, message, self.key_owners)
        self.advertised[sender] = message
        self.frames[sender] = whole

    def _take_shares(self, sender: int, boxes: tuple[Box, ...]) -> None:
        expected = (self.graph.holders(sender) & self.advertised.keys()) - {sender}
        if {box.peer for box in boxes} != expected:
            raise MalformedMessage(f"client {sender} does not share with exactly its neighbours", _DROP)
        for box in boxes:
            self.boxes.setdefault(box.peer, {})[sender] = box.sealed

    def _take_input(self, sender: int, message: MaskedInput) -> None:
        if not input_tag_holds(message.tag, self.secret_with(sender), self.binding, sender, message.words):
            raise TamperedInput(f"the masked input of client {sender} does not authenticate", "have it sent again")
        self.total += self.parameters.ring.unpack(message.words)

    def _take_unmask(self, sender: int, message: Unmask) -> None:
        held = self.graph.holders(sender) & set(self.sharers)  # who holds whose shares is mutual
        alive = held & set(self.survivors)
        if {s.owner for s in message.seeds} != alive or {s.owner for s in message.keys} != held - alive:
            raise MalformedMessage(f"client {sender} answers for others than it was asked about", _DROP)
        self.unmask[sender] = message

    def digests(self) -> Mapping[int, bytes]:
        """SHA-256 of each client's `Advertise`."""
        return {index: hashlib.sha256(message.encode()).digest() for index, message in self.advertised.items()}

    def draw_graph(self, transcript: bytes) -> None:
        """Order the ring, now that all have revealed; nothing in a complete graph."""
        if self.parameters.graph is not None:
            seed = graph_seed(transcript, {index: message.reveal for index, message in self.advertised.items()})
            self.graph = ring_graph(seed, self.parameters.clients, self.parameters.graph.degree)

    def commit_book(self) -> bytes:
        """What all clients read after the commit stage."""
        return CommitBook(self.commitments).encode()

    def key_books(self) -> dict[int, bytes]:
        """What each client reads after the advertise stage."""
        digests, public = self.digests(), self.session_key.public
        rows = tuple(Revealed(self.advertised[index].reveal, digests[index]) for index in sorted(self.commitments))
        if not self.limits.regular:
            book = KeyBook(public, (), tuple(self.frames[index] for index in sorted(self.frames))).encode()
            return dict.fromkeys(sorted(self.frames), book)
        head = KeyBook(public, rows, ()).encode()[:-2]  # the same for all, but for the frames and their count
        near = {index: self._frames_near(index, {index}) for index in sorted(self.frames)}
        return {index: head + FrameList(frames).encode() for index, frames in near.items()}

    def deliveries(self) -> dict[int, bytes]:
        """What each client reads after the share stage."""
        bodies = {}
        for index in self.sharers:
            sealed = self.boxes[index]
            boxes = tuple(Box(peer, sealed[peer]) for peer in sorted(sealed))
            bodies[index] = ShareDelivery(self.sharers, boxes).encode()
        return bodies

    def proofs(self) -> dict[int, bytes]:
        """What each client that can go on reads after the consistency stage."""
        if not self.limits.regular:
            proof = FrameList(tuple(self.frames[index] for index in sorted(self.frames))).encode()
            return dict.fromkeys(sorted(self.frames), proof)
        return {
            index: FrameList(self._frames_near(index, set())).encode()
            for index in sorted(self.frames)
            if len(self.graph.holders(index) & self.frames.keys()) >= self.parameters.threshold
        }

    def _frames_near(self, index: int, also: set[int]) -> tuple[bytes, ...]:
        near = (self.graph.neighbours(index) | also) & self.frames.keys()
        return tuple(self.frames[peer] for peer in sorted(near))
