"""What the server passes on from all clients to each of them: commitments, keys, signatures."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from securekd_protocols.graph import REVEAL_BYTES
from securekd_protocols.keys import KEY_BYTES
from securekd_protocols.messages import HASH_BYTES, Limits
from securekd_protocols.wire import Bytes, Reader, Writer

_COMMITMENT = Struct(f"<H{HASH_BYTES}s")
_REVEALED = Struct(f"<{REVEAL_BYTES}s{HASH_BYTES}s")


@dataclass(frozen=True)
class CommitBook:
    """Server to clients: who has committed, and to what. Who stands here must reveal, or the session ends.

    Attributes:
        commitments: By client index.
    """

    commitments: dict[int, bytes]

    def encode(self) -> bytes:
        """Count, then index and commitment each, in ascending order."""
        return Writer().rows(_COMMITMENT, sorted(self.commitments.items())).finish()

    @classmethod
    def decode(cls, body: Bytes, limits: Limits) -> CommitBook:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "commit book")
        rows = reader.rows(limits.clients, _COMMITMENT)
        reader.ascending([index for index, _ in rows], limits.clients)
        reader.finish()
        return cls(dict(rows))


@dataclass(frozen=True)
class Revealed:
    """What everybody learns of a client that need not be its neighbour.

    Attributes:
        reveal: Its part of the graph seed, 32 bytes.
        digest: SHA-256 of its `Advertise`, 32 bytes.
    """

    reveal: bytes
    digest: bytes


@dataclass(frozen=True)
class KeyBook:
    """Server to clients: the keys of those with whom the reader deals.

    Attributes:
        server_key: The server's X25519 key of this session, for tags of what only it reads.
        revealed: In a k-regular graph, one row for each client of the commit book, in its order; else none.
        frames: Whole `Advertise` frames, in ascending order of senders: everybody's in a complete graph, and those of
            the reader and its neighbours in a k-regular one.
    """

    server_key: bytes
    revealed: tuple[Revealed, ...]
    frames: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Server key, rows with their count, frames with theirs."""
        writer = Writer().fixed(self.server_key).rows(_REVEALED, [(row.reveal, row.digest) for row in self.revealed])
        return writer.blobs(self.frames).finish()

    @classmethod
    def decode(cls, body: Bytes, limits: Limits, frame_cap: int) -> KeyBook:
        """Read a body with frames of at most `frame_cap` bytes, or raise `MalformedMessage`."""
        reader = Reader(body, "key book")
        server_key = reader.fixed(KEY_BYTES)
        revealed = tuple(Revealed(*row) for row in reader.rows(limits.clients if limits.regular else 0, _REVEALED))
        message = cls(server_key, revealed, reader.blobs(limits.clients, frame_cap))
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
