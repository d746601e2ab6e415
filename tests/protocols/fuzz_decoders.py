"""A coverage-guided fuzzer over every decoder, with atheris: `python fuzz_decoders.py CORPUS -max_total_time=60`.

The first byte of an input chooses the decoder. Whatever the rest is, a decoder gives a message that encodes to the very
same bytes, or raises `ProtocolError`; anything else is a crash.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["securekd_protocols"]):
    from securekd_protocols.books import CommitBook, FrameList, KeyBook
    from securekd_protocols.diary import CohortRule, Diary
    from securekd_protocols.errors import ProtocolError
    from securekd_protocols.frame import FRAME_IN_LIST, parse_frame
    from securekd_protocols.masking.saved import SecretState, load_session, save_session
    from securekd_protocols.messages import (
        Advertise,
        Commit,
        Consistency,
        Limits,
        MaskedInput,
        ShareDelivery,
        SharePair,
        Shares,
        SurvivorList,
        Unmask,
    )
    from securekd_protocols.parameters import SessionParameters

COMPLETE, REGULAR = Limits(9, 12), Limits(9, 12, regular=True)


def plain(kind) -> Callable[[bytes], bytes]:
    def again(data: bytes) -> bytes:
        encoded = kind.decode(data[1:], REGULAR if data[0] & 128 else COMPLETE).encode()
        return b"".join(encoded) if isinstance(encoded, tuple) else bytes(encoded)

    return again


def listed(kind) -> Callable[[bytes], bytes]:
    return lambda data: kind.decode(data[1:], REGULAR if data[0] & 128 else COMPLETE, FRAME_IN_LIST).encode()


def framed(data: bytes) -> bytes:
    frame = parse_frame(data[1:], COMPLETE)
    return data[1:77] + bytes(frame.body) + frame.proof


def saved(data: bytes) -> bytes:
    return save_session(*load_session(SecretState(data[1:]))).secret_bytes


def diary(data: bytes) -> bytes:
    """A diary of release 0.1 is written as one of this release, and then stays as it is."""
    loaded = Diary.load(data[1:], CohortRule())
    assert Diary.load(loaded.save(), CohortRule()) == loaded
    return data[1:] if data[5:6] == b"\x01" else loaded.save()


DECODERS: list[Callable[[bytes], bytes]] = [
    framed,
    saved,
    lambda data: SessionParameters.decode(data[1:]).encoded,
    diary,
    lambda data: SharePair.decode(data[1:]).encode(),
    *(plain(kind) for kind in (Advertise, Commit, CommitBook, Consistency, MaskedInput, ShareDelivery, Shares)),
    *(plain(kind) for kind in (SurvivorList, Unmask)),
    *(listed(kind) for kind in (FrameList, KeyBook)),
]


def one_input(data: bytes) -> None:
    """Decode, and encode again."""
    if not data:
        return
    decoder = DECODERS[(data[0] & 127) % len(DECODERS)]
    try:
        encoded = decoder(data)
    except ProtocolError:
        return
    if encoded != data[1:]:
        raise AssertionError("a second spelling of a message was accepted")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
