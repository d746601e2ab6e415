"""The running transcript hash: what a participant believes has happened, in 32 bytes.

It begins as the session id and takes in the advertised keys, the set of clients whose shares were delivered, and the
set of survivors. Every message carries, and its signature covers, the transcript that its sender holds; two clients
that were shown different things can not read each other's messages, and their masks do not cancel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from securekd_protocols.keys import Label
from securekd_protocols.messages import Advertise
from securekd_protocols.wire import Writer


def with_keys(transcript: bytes, advertised: Mapping[int, Advertise]) -> bytes:
    """Take in every advertised key and seed commitment, by ascending client index."""
    writer = Writer().fixed(Label.KEYS.value).fixed(transcript).integer(len(advertised), 2)
    for index in sorted(advertised):
        writer.integer(index, 2).fixed(advertised[index].encode())
    return hashlib.sha256(writer.finish()).digest()


def with_sharers(transcript: bytes, sharers: Iterable[int]) -> bytes:
    """Take in the set of clients whose shares were delivered; the masks are for these."""
    return hashlib.sha256(Writer().fixed(Label.SHARERS.value).fixed(transcript).indices(sharers).finish()).digest()


def with_survivors(transcript: bytes, survivors: Iterable[int]) -> bytes:
    """Take in the set of clients whose masked inputs are in the sum."""
    return hashlib.sha256(Writer().fixed(Label.SURVIVORS.value).fixed(transcript).indices(survivors).finish()).digest()
