"""The messages' bodies: frozen types, each with its one encoding.

A body never says who sends it, or in which session: that stands in the frame around it (`frame`). Decoders take the
session's `Limits`, so that no count and no length is believed beyond what the session can hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from securekd_protocols.graph import REVEAL_BYTES
from securekd_protocols.keys import KEY_BYTES, SEAL_OVERHEAD, TAG_BYTES
from securekd_protocols.shamir import SHARE_BYTES, decode_share, encode_share
from securekd_protocols.wire import Bytes, Reader, Writer

HASH_BYTES = 32
BOX_BYTES = SEAL_OVERHEAD + 2 * SHARE_BYTES
_BOX = Struct(f"<H{BOX_BYTES}s")
_SHARE = Struct(f"<H{SHARE_BYTES}s")


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
    COMMIT = 10
    COMMIT_BOOK = 11


@dataclass(frozen=True)
class Limits:
    """How large a session's messages can be, and which shape they have.

    Attributes:
        clients: Clients on the roster.
        vector_bytes: Bytes of a masked vector.
        regular: Whether the graph is k-regular, so that seeds of it are committed to and revealed.
    """

    clients: int
    vector_bytes: int
    regular: bool = False


@dataclass(frozen=True)
class Commit:
    """Client to all, in a k-regular graph only: a commitment to its part of the graph seed.

    Attributes:
        commitment: 32 bytes, as `keys.commit_to_reveal` makes them.
    """

    commitment: bytes

    def encode(self) -> bytes:
        """32 bytes."""
        return self.commitment

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> Commit:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "commit")
        message = cls(reader.fixed(HASH_BYTES))
        reader.finish()
        return message


@dataclass(frozen=True)
class Advertise:
    """Client to all: the public half of its session keys.

    Attributes:
        share_key: X25519, for the boxes in which shares travel and for tags of what only the server reads.
        mask_key: X25519, for the pairwise masks; its private half is shared.
        seed_commitment: SHA-256 commitment to the self-mask seed, which is shared too.
        reveal: Its part of the graph seed, 32 bytes; empty in a complete graph.
    """

    share_key: bytes
    mask_key: bytes
    seed_commitment: bytes
    reveal: bytes = b""

    def encode(self) -> bytes:
        """96 bytes, or 128 with a reveal."""
        return self.share_key + self.mask_key + self.seed_commitment + self.reveal

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> Advertise:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "advertise")
        keys = reader.fixed(KEY_BYTES), reader.fixed(KEY_BYTES), reader.fixed(HASH_BYTES)
        message = cls(*keys, reader.fixed(REVEAL_BYTES if limits.regular else 0))
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
    """Client to server: a box for every neighbour that has advertised.

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
    """Server to one client: who has shared, and the boxes for this client from its neighbours among them.

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
        tag: 16 bytes, as `keys.input_tag` makes them. The frame's tag covers it in the vector's stead.
        words: The masked vector's bytes, as `Ring.pack` writes them.
    """

    tag: bytes
    words: Bytes

    def encode(self) -> tuple[Bytes, Bytes]:
        """Tag and vector, as two parts that the frame joins: no copy of the vector for its own sake."""
        return self.tag, self.words

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> MaskedInput:
        """View a body as tag and vector, without a copy, or raise `MalformedMessage`."""
        reader = Reader(body, "masked input")
        message = cls(reader.fixed(TAG_BYTES), reader.view(limits.vector_bytes))
        reader.finish()
        return message


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
            writer.rows(_SHARE, [(held.owner, encode_share(held.share)) for held in shares])
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
    writer.rows(_BOX, [(box.peer, box.sealed) for box in boxes])


def _read_boxes(reader: Reader, limits: Limits) -> tuple[Box, ...]:
    boxes = tuple(Box(*row) for row in reader.rows(limits.clients, _BOX))
    reader.ascending([box.peer for box in boxes], limits.clients)
    return boxes


def _read_shares(reader: Reader, limits: Limits) -> tuple[HeldShare, ...]:
    shares = tuple(HeldShare(owner, decode_share(share)) for owner, share in reader.rows(limits.clients, _SHARE))
    reader.ascending([held.owner for held in shares], limits.clients)
    return shares
