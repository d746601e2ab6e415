"""The running transcript hash: what a participant believes has happened, in 32 bytes.

It begins as the session id and takes in the commitments to the graph seed (in a k-regular graph), the server's session
key and every advertised key, the set of clients whose shares were delivered, and the set of survivors. Every message
carries, and its signature or tag covers, the transcript that its sender holds; two clients that were shown different
things can not read each other's messages, and their masks do not cancel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from struct import Struct

from securekd_protocols.keys import Label
from securekd_protocols.wire import Writer

_ROW = Struct("<H32s")


def with_commitments(transcript: bytes, commitments: Mapping[int, bytes]) -> bytes:
    """Take in every commitment (32 bytes) to a part of the graph seed, by ascending client index."""
    return _with_rows(Label.COMMITMENTS, transcript, commitments)


def with_keys(transcript: bytes, server_key: bytes, digests: Mapping[int, bytes]) -> bytes:
    """Take in the server's session key and the SHA-256 of each client's `Advertise`, by ascending client index."""
    return _with_rows(Label.KEYS, transcript + server_key, digests)


def with_sharers(transcript: bytes, sharers: Iterable[int]) -> bytes:
    """Take in the set of clients whose shares were delivered; the masks are for these."""
    return hashlib.sha256(Writer().fixed(Label.SHARERS.value).fixed(transcript).indices(sharers).finish()).digest()


def with_survivors(transcript: bytes, survivors: Iterable[int]) -> bytes:
    """Take in the set of clients whose masked inputs are in the sum."""
    return hashlib.sha256(Writer().fixed(Label.SURVIVORS.value).fixed(transcript).indices(survivors).finish()).digest()


def _with_rows(label: Label, before: bytes, rows: Mapping[int, bytes]) -> bytes:
    writer = Writer().fixed(label.value).fixed(before).rows(_ROW, sorted(rows.items()))
    return hashlib.sha256(writer.finish()).digest()
