"""Every decoder: what is encoded comes back, and anything else is a named refusal."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols.books import CommitBook, FrameList, KeyBook, Revealed
from securekd_protocols.errors import BadSignature, MalformedMessage, ProtocolError, UnknownSender, UnknownVersion
from securekd_protocols.frame import FRAME_IN_LIST, SERVER, Header, parse_frame, seal_frame, verify_frame
from securekd_protocols.keys import Identity
from securekd_protocols.messages import (
    BOX_BYTES,
    Advertise,
    Box,
    Commit,
    Consistency,
    HeldShare,
    Kind,
    Limits,
    MaskedInput,
    ShareDelivery,
    SharePair,
    Shares,
    SurvivorList,
    Unmask,
)
from securekd_protocols.shamir import PRIME
from tests.protocols.harness import Session

LIMITS = Limits(clients=12, vector_bytes=20)
REGULAR = Limits(clients=12, vector_bytes=20, regular=True)
key = st.binary(min_size=32, max_size=32)
indices = st.sets(st.integers(0, 11)).map(lambda s: tuple(sorted(s)))
boxes = st.dictionaries(st.integers(0, 11), st.binary(min_size=BOX_BYTES, max_size=BOX_BYTES), max_size=3).map(
    lambda d: tuple(Box(peer, d[peer]) for peer in sorted(d))
)
field_element = st.integers(0, PRIME - 1)


def held(owners):
    return st.fixed_dictionaries(dict.fromkeys(owners, field_element)).map(
        lambda d: tuple(HeldShare(owner, d[owner]) for owner in sorted(d))
    )


unmasks = indices.flatmap(lambda mine: st.builds(Unmask, held(mine[: len(mine) // 2]), held(mine[len(mine) // 2 :])))
MESSAGES = st.one_of(
    st.builds(Advertise, key, key, key),
    st.builds(Shares, boxes),
    st.builds(ShareDelivery, indices, boxes),
    st.builds(SurvivorList, indices),
    st.just(Consistency()),
    unmasks,
    st.lists(st.binary(max_size=50), max_size=4).map(lambda frames: FrameList(tuple(frames))),
)


frames = st.lists(st.binary(max_size=50), max_size=4).map(tuple)
REGULAR_MESSAGES = st.one_of(
    st.builds(Advertise, key, key, key, key),
    st.builds(Commit, key),
    st.builds(CommitBook, st.dictionaries(st.integers(0, 11), key, max_size=4)),
    st.builds(KeyBook, key, st.lists(st.builds(Revealed, key, key), max_size=3).map(tuple), frames),
)
MESSAGES = st.one_of(MESSAGES, st.builds(KeyBook, key, st.just(()), frames), REGULAR_MESSAGES)


def limits_for(message):
    regular = isinstance(message, Commit | CommitBook | KeyBook) or getattr(message, "reveal", b"") != b""
    return REGULAR if regular else LIMITS


def decode(message, body):
    """Read a body as a message of the same type, in a session of the same graph."""
    cap = (FRAME_IN_LIST,) if isinstance(message, FrameList | KeyBook) else ()
    return type(message).decode(body, limits_for(message), *cap)


@given(MESSAGES)
def test_round_trip(message):
    assert decode(message, message.encode()) == message


@given(st.lists(st.builds(Revealed, key, key), min_size=1, max_size=3))
def test_there_are_no_reveals_in_a_complete_graph(rows):
    book = KeyBook(bytes(32), tuple(rows), ()).encode()
    with pytest.raises(MalformedMessage):
        KeyBook.decode(book, LIMITS, FRAME_IN_LIST)
    with pytest.raises(MalformedMessage):
        Advertise.decode(bytes(128), LIMITS)
    with pytest.raises(MalformedMessage):
        Advertise.decode(bytes(96), REGULAR)


@given(MESSAGES, st.data())
def test_truncated_or_prolonged_is_malformed(message, data):
    body = message.encode()
    with pytest.raises(MalformedMessage):
        decode(message, body + data.draw(st.binary(min_size=1, max_size=9)))
    if body:
        with pytest.raises(MalformedMessage):
            decode(message, body[: data.draw(st.integers(0, len(body) - 1))])


@given(MESSAGES, st.binary(max_size=400))
def test_any_bytes_are_a_message_in_its_one_encoding_or_refused(message, junk):
    try:
        read = decode(message, junk)
    except MalformedMessage:
        return
    assert read.encode() == junk


@given(MESSAGES, st.data())
def test_a_flipped_bit_gives_another_message_or_is_refused(message, data):
    body = bytearray(message.encode())
    if not body:
        return
    bit = data.draw(st.integers(0, 8 * len(body) - 1))
    body[bit // 8] ^= 1 << (bit % 8)
    with contextlib.suppress(MalformedMessage):
        assert decode(message, bytes(body)) != message


def test_a_masked_input_is_a_tag_and_the_vector():
    body = bytes(range(36))
    message = MaskedInput.decode(body, LIMITS)
    assert (message.tag, bytes(message.words)) == (body[:16], body[16:])
    assert b"".join(message.encode()) == body
    for wrong in (body[:-1], body[:-4], body + bytes(4), b""):
        with pytest.raises(MalformedMessage):
            MaskedInput.decode(wrong, LIMITS)


def test_both_shares_of_one_client_are_no_message():
    share = HeldShare(3, 5)
    with pytest.raises(MalformedMessage):
        Unmask.decode(Unmask((share,), (share,)).encode(), LIMITS)


def test_a_share_that_is_no_field_element_is_malformed():
    with pytest.raises(MalformedMessage):
        SharePair.decode(PRIME.to_bytes(33, "little") + bytes(33))
    assert SharePair.decode(SharePair(1, PRIME - 1).encode()) == SharePair(1, PRIME - 1)


IDENTITY = Identity(bytes(range(32)))
FRAME = seal_frame(Header(Kind.SURVIVOR_LIST, SERVER, b"s" * 32, b"t" * 32), SurvivorList((1, 2)).encode(), IDENTITY)


def test_frame_round_trip():
    frame = parse_frame(FRAME, LIMITS)
    assert frame.header == Header(Kind.SURVIVOR_LIST, SERVER, b"s" * 32, b"t" * 32)
    assert SurvivorList.decode(frame.body, LIMITS) == SurvivorList((1, 2))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda f: b"", MalformedMessage),
        (lambda f: f[:100], MalformedMessage),
        (lambda f: b"XXXX" + f[4:], MalformedMessage),
        (lambda f: f[:4] + b"\x02" + f[5:], UnknownVersion),
        (lambda f: f[:5] + b"\xee" + f[6:], MalformedMessage),
        (lambda f: f + b"\0", MalformedMessage),
        (lambda f: f[:72] + b"\xff\xff\xff\xff" + f[76:], MalformedMessage),
    ],
)
def test_bad_frames(change, error):
    with pytest.raises(error):
        parse_frame(change(FRAME), LIMITS)


def test_a_frame_larger_than_its_kind_can_be_is_refused():
    for kind in Kind:
        huge = seal_frame(Header(kind, 0, bytes(32), bytes(32)), bytes(6000), IDENTITY)
        with pytest.raises(MalformedMessage):
            parse_frame(huge, Limits(3, 12))


@settings(max_examples=60)
@given(st.data())
def test_no_bit_of_a_signed_frame_can_be_changed(data):
    session = Session(n=3, d=2)
    frame = bytearray(session.server.invitation())
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ProtocolError):
        verify_frame(parse_frame(bytes(frame), Limits(3, 8)), session.parameters)


def test_who_signs_what():
    session = Session(n=3)
    body, zeros = Consistency().encode(), bytes(32)
    stranger = seal_frame(Header(Kind.CONSISTENCY, 3, zeros, zeros), body, session.identities[0])
    with pytest.raises(UnknownSender):
        verify_frame(parse_frame(stranger, session.limits), session.parameters)
    impostor = seal_frame(Header(Kind.CONSISTENCY, 1, zeros, zeros), body, session.identities[0])
    with pytest.raises(BadSignature):
        verify_frame(parse_frame(impostor, session.limits), session.parameters)
