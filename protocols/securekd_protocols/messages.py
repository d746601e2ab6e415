"""The messages' bodies: frozen types, each with its one encoding.

A body never says who sends it, or in which session: that stands in the frame around it (`frame`). Decoders take the
session's `Limits`, so that no count and no length is believed beyond what the session can hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from securekd_protocols.keys import KEY_BYTES, SEAL_OVERHEAD
from securekd_protocols.ring import WORD, Ring
from securekd_protocols.shamir import SHARE_BYTES, decode_share, encode_share
from securekd_protocols.wire import Bytes, Reader, Writer

BOX_BYTES = SEAL_OVERHEAD + 2 * SHARE_BYTES
_BOX_ITEM = 2 + BOX_BYTES
_SHARE_ITEM = 2 + SHARE_BYTES


class Kind(IntEnum):
    """What a message is, as the byte on the wire."""

    INVITATION = 0
    ADVERTISE = 1
    KEY_BOOK = 2
    SHARES = 3
    SHARE_DELIVERY = 4
    MASKED_INPUT = 5
    SURVIVOR_LIST = 6
    CONSISTENCY = 7
    CONSISTENCY_PROOF = 8
    UNMASK = 9


@dataclass(frozen=True)
class Limits:
    """How large a session's messages can be.

    Attributes:
        clients: Clients on the roster.
        vector_length: Entries of an input.
    """

    clients: int
    vector_length: int


@dataclass(frozen=True)
class Advertise:
    """Client to all: the public half of its session keys.

    Attributes:
        share_key: X25519, for the boxes in which shares travel.
        mask_key: X25519, for the pairwise masks; its private half is shared.
        seed_commitment: SHA-256 commitment to the self-mask seed, which is shared too.
    """

    share_key: bytes
    mask_key: bytes
    seed_commitment: bytes

    def encode(self) -> bytes:
        """96 bytes."""
        return self.share_key + self.mask_key + self.seed_commitment

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> Advertise:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "advertise")
        message = cls(reader.fixed(KEY_BYTES), reader.fixed(KEY_BYTES), reader.fixed(32))
        reader.finish()
        return message


@dataclass(frozen=True)
class FrameList:
    """Server to clients: whole frames of other clients, signatures included, in ascending order of their senders.

    Attributes:
        frames: The frames' bytes, unread.
    """

    frames: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Count and blobs."""
        return Writer().blobs(self.frames).finish()

    @classmethod
    def decode(cls, body: Bytes, limits: Limits, frame_cap: int) -> FrameList:
        """Read a body of frames of at most `frame_cap` bytes, or raise `MalformedMessage`."""
        reader = Reader(body, "frame list")
        message = cls(reader.blobs(limits.clients, frame_cap))
        reader.finish()
        return message


@dataclass(frozen=True)
class Box:
    """Two encrypted shares for, or from, another client.

    Attributes:
        peer: The recipient on the way to the server, the sender on the way from it.
        sealed: 94 bytes, as `keys.seal` makes them of a `SharePair`.
    """

    peer: int
    sealed: bytes


@dataclass(frozen=True)
class SharePair:
    """What a client holds of one other: a share of its self-mask seed and one of its mask key. Only one ever leaves.

    Attributes:
        seed: Share of the self-mask seed.
        key: Share of the private mask key.
    """

    seed: int
    key: int

    def encode(self) -> bytes:
        """66 bytes."""
        return encode_share(self.seed) + encode_share(self.key)

    @classmethod
    def decode(cls, data: bytes) -> SharePair:
        """Read a pair, or raise `MalformedMessage`."""
        return cls(decode_share(data[:SHARE_BYTES]), decode_share(data[SHARE_BYTES:]))


@dataclass(frozen=True)
class Shares:
    """Client to server: a box for every other client that has advertised.

    Attributes:
        boxes: In ascending order of recipients.
    """

    boxes: tuple[Box, ...]

    def encode(self) -> bytes:
        """Count, then index and box each."""
        writer = Writer()
        _write_boxes(writer, self.boxes)
        return writer.finish()

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> Shares:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "shares")
        message = cls(_read_boxes(reader, limits))
        reader.finish()
        return message


@dataclass(frozen=True)
class ShareDelivery:
    """Server to one client: who has shared, and the boxes for this client.

    Attributes:
        sharers: Every client whose shares the server delivers, the recipient included.
        boxes: In ascending order of senders.
    """

    sharers: tuple[int, ...]
    boxes: tuple[Box, ...]

    def encode(self) -> bytes:
        """Sharers, then boxes."""
        writer = Writer().indices(self.sharers)
        _write_boxes(writer, self.boxes)
        return writer.finish()

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> ShareDelivery:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "share delivery")
        message = cls(reader.indices(limits.clients), _read_boxes(reader, limits))
        reader.finish()
        return message


@dataclass(frozen=True)
class MaskedInput:
    """Client to server: its input under all of its masks.

    Attributes:
        words: `WORD` array of shape (vector_length,).
    """

    words: Ring

    def encode(self) -> memoryview:
        """Four little-endian bytes for each entry, without a copy."""
        return np.ascontiguousarray(self.words, WORD).data.cast("B")

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> MaskedInput:
        """View a body as words, without a copy, or raise `MalformedMessage`."""
        reader = Reader(body, "masked input")
        words = np.frombuffer(reader.view(WORD.itemsize * limits.vector_length), WORD)
        reader.finish()
        return cls(words)


@dataclass(frozen=True)
class SurvivorList:
    """Server to survivors: whose inputs are in the sum. Who has shared and is not named here has dropped out.

    There is no second list, so that nobody can be named alive and dead in one message.

    Attributes:
        survivors: In ascending order.
    """

    survivors: tuple[int, ...]

    def encode(self) -> bytes:
        """A set of indices."""
        return Writer().indices(self.survivors).finish()

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> SurvivorList:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "survivor list")
        message = cls(reader.indices(limits.clients))
        reader.finish()
        return message


@dataclass(frozen=True)
class Consistency:
    """Client to server: nothing but the transcript in its frame, signed."""

    def encode(self) -> bytes:
        """Zero bytes."""
        return b""

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> Consistency:
        """Read a body, or raise `MalformedMessage`."""
        Reader(body, "consistency").finish()
        return cls()


@dataclass(frozen=True)
class HeldShare:
    """One share, named by its owner.

    Attributes:
        owner: Whose secret it is a share of.
        share: A field element.
    """

    owner: int
    share: int


@dataclass(frozen=True)
class Unmask:
    """Client to server: shares of survivors' seeds and of the others' mask keys, never both for one client.

    Attributes:
        seeds: In ascending order of owners.
        keys: In ascending order of owners.
    """

    seeds: tuple[HeldShare, ...]
    keys: tuple[HeldShare, ...]

    def encode(self) -> bytes:
        """Both lists, each with its count."""
        writer = Writer()
        for shares in (self.seeds, self.keys):
            writer.integer(len(shares), 2)
            for held in shares:
                writer.integer(held.owner, 2).fixed(encode_share(held.share))
        return writer.finish()

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> Unmask:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "unmask")
        message = cls(_read_shares(reader, limits), _read_shares(reader, limits))
        both = {held.owner for held in message.seeds} & {held.owner for held in message.keys}
        if both:
            raise reader.malformed(f"both shares of clients {sorted(both)}")
        reader.finish()
        return message


def _write_boxes(writer: Writer, boxes: tuple[Box, ...]) -> None:
    writer.integer(len(boxes), 2)
    for box in boxes:
        writer.integer(box.peer, 2).fixed(box.sealed)


def _read_boxes(reader: Reader, limits: Limits) -> tuple[Box, ...]:
    count = reader.count(limits.clients, _BOX_ITEM)
    boxes = tuple(Box(reader.integer(2), reader.fixed(BOX_BYTES)) for _ in range(count))
    reader.ascending([box.peer for box in boxes], limits.clients)
    return boxes


def _read_shares(reader: Reader, limits: Limits) -> tuple[HeldShare, ...]:
    count = reader.count(limits.clients, _SHARE_ITEM)
    shares = tuple(HeldShare(reader.integer(2), decode_share(reader.view(SHARE_BYTES))) for _ in range(count))
    reader.ascending([held.owner for held in shares], limits.clients)
    return shares
