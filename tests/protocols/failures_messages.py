"""The scenarios of `failures` that are about single messages: keys, reveals, replays, shares, inputs, bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from securekd_protocols.books import CommitBook, KeyBook
from securekd_protocols.frame import FRAME_IN_LIST, SERVER, Header, seal_frame
from securekd_protocols.keys import AgreementKey
from securekd_protocols.masking.server import MaskingServer
from securekd_protocols.messages import Advertise, Box, HeldShare, Kind, ShareDelivery, Shares, SurvivorList, Unmask
from securekd_protocols.shamir import PRIME
from securekd_protocols.states import ServerState
from tests.protocols.failures import FAILURES, RING, Vector, at_client, at_server, failure, new_session, receive
from tests.protocols.harness import Session, message_to

FRESH = AgreementKey(b"\x20" + b"\x21" * 30 + b"\x61").public


# --- keys -------------------------------------------------------------------------------------------------------------


def key_book(change: Callable[[list[Advertise]], Advertise]) -> tuple[Session, bytes]:
    """A key book in which client 4, in league with the server, advertises what it likes."""
    session = new_session()
    frames = session.answers()
    honest = [Advertise.decode(session.body_of(data), session.limits) for data in frames]
    frames[4] = session.signed_by(4, Kind.ADVERTISE, change(honest).encode(), session.parameters.session_id)
    return session, session.proof(frames)


def bad_key(name: str, error: str, change: Callable[[list[Advertise]], Advertise]) -> None:
    def make() -> Vector:
        session, book = key_book(change)
        return at_client(session, error, receive(book))

    FAILURES[name] = make


bad_key("duplicate-key", "DuplicateKey", lambda h: replace(h[4], mask_key=h[1].mask_key))
bad_key("low-order-key", "LowOrderPoint", lambda h: replace(h[4], share_key=b"\x01" + bytes(31)))
bad_key("key-that-gives-an-all-zero-secret", "LowOrderPoint", lambda h: replace(h[4], mask_key=bytes(32)))
bad_key(
    "second-spelling-of-a-key",
    "NonCanonicalKey",
    lambda h: replace(h[4], mask_key=h[1].mask_key[:31] + bytes([h[1].mask_key[31] | 128])),
)


@failure("swapped-keys")
def _() -> Vector:
    session = new_session()
    frames = session.answers()
    bodies = [session.body_of(data) for data in frames]
    frames[1] = frames[1][:76] + bodies[2] + frames[1][-64:]
    frames[2] = frames[2][:76] + bodies[1] + frames[2][-64:]
    return at_client(session, "BadSignature", receive(session.proof(frames)))


@failure("own-keys-replaced")
def _() -> Vector:
    session, book = key_book(lambda h: replace(h[4], share_key=FRESH))
    return at_client(session, "TranscriptMismatch", receive(book), index=4)


# --- commit and reveal ------------------------------------------------------------------------------------------------


@failure("withheld-reveal")
def _() -> Vector:
    session = new_session(**RING).until(ServerState.KEYS)
    for data in session.answers()[:-1]:
        session.to_server(data)
    return at_server(session, "WithheldReveal", {"close": True}, after="aborted")


@failure("withheld-reveal-at-a-client")
def _() -> Vector:
    session = new_session(**RING).until(ServerState.SHARES)
    data = message_to(0, session.inbox)
    book = KeyBook.decode(session.body_of(data), session.limits, FRAME_IN_LIST)
    fewer = replace(book, revealed=book.revealed[:-1]).encode()
    return at_client(
        session, "WithheldReveal", receive(session.forged(Kind.KEY_BOOK, fewer, session.transcript_of(data)))
    )


@failure("reveal-that-was-not-committed-to")
def _() -> Vector:
    session = new_session(**RING).until(ServerState.SHARES)
    data = message_to(0, session.inbox)
    book = KeyBook.decode(session.body_of(data), session.limits, FRAME_IN_LIST)
    rows = (*book.revealed[:-1], replace(book.revealed[-1], reveal=bytes(32)))
    other = replace(book, revealed=rows).encode()
    lie = session.forged(Kind.KEY_BOOK, other, session.transcript_of(data))
    return at_client(session, "BrokenCommitment", receive(lie))


@failure("own-commitment-replaced")
def _() -> Vector:
    session = new_session(**RING).until(ServerState.KEYS)
    data = message_to(0, session.inbox)
    book = CommitBook.decode(session.body_of(data), session.limits)
    other = CommitBook(book.commitments | {0: bytes(32)}).encode()
    lie = session.forged(Kind.COMMIT_BOOK, other, session.transcript_of(data))
    return at_client(session, "TranscriptMismatch", receive(lie))


# --- replay, order, associated data -----------------------------------------------------------------------------------


@failure("replay-from-another-session")
def _() -> Vector:
    session, other = new_session(), Session(n=5, d=2, seed=b"").until(ServerState.SHARES)
    other.parameters = replace(other.parameters, nonce=b"n" * 32)
    other.server = MaskingServer(other.parameters, other.operator)
    session.until(ServerState.SHARES)
    data = other.forged(Kind.KEY_BOOK, b"", other.parameters.session_id)
    return at_client(session, "ReplayedMessage", receive(data), after="advertised")


@failure("replay-within-a-session")
def _() -> Vector:
    session = new_session()
    first = session.answers()[0]
    session.to_server(first)
    return at_server(session, "ReplayedMessage", receive(first), after="keys")


@failure("stages-reordered")
def _() -> Vector:
    session = new_session().until(ServerState.SHARES)
    early = session.forged(Kind.SURVIVOR_LIST, SurvivorList((0, 1, 2, 3)).encode(), bytes(32))
    return at_client(session, "OutOfOrder", receive(early), after="advertised")


def delivery(change: Callable[[tuple[Box, ...]], tuple[Box, ...]]) -> tuple[Session, bytes]:
    session = new_session().until(ServerState.MASKED_INPUTS)
    data = message_to(0, session.inbox)
    genuine = ShareDelivery.decode(session.body_of(data), session.limits)
    changed = ShareDelivery(genuine.sharers, change(genuine.boxes))
    return session, session.forged(Kind.SHARE_DELIVERY, changed.encode(), session.transcript_of(data))


@failure("share-with-wrong-associated-data")
def _() -> Vector:
    session, data = delivery(lambda b: (Box(b[0].peer, b[1].sealed), Box(b[1].peer, b[0].sealed), *b[2:]))
    return at_client(session, "TamperedShare", receive(data))


@failure("tampered-share")
def _() -> Vector:
    session, data = delivery(lambda b: (Box(b[0].peer, b[0].sealed[:-1] + bytes([b[0].sealed[-1] ^ 1])), *b[1:]))
    return at_client(session, "TamperedShare", receive(data))


@failure("share-with-a-duplicate-index")
def _() -> Vector:
    session, data = delivery(lambda b: (b[0], b[0], *b[2:]))
    return at_client(session, "MalformedMessage", receive(data))


@failure("wrong-share-at-the-end")
def _() -> Vector:
    session = new_session().until(ServerState.UNMASKING)
    answers = session.answers()
    message = Unmask.decode(session.body_of(answers[0]), session.limits)
    first = message.seeds[0]
    seeds = (HeldShare(first.owner, (first.share + 1) % PRIME), *message.seeds[1:])
    wrong = session.signed_by(0, Kind.UNMASK, Unmask(seeds, message.keys).encode(), session.transcript_of(answers[0]))
    for data in (wrong, *answers[1:-1]):
        session.to_server(data)
    return at_server(session, "TamperedShare", receive(answers[-1]), after="aborted")


@failure("shares-for-others-than-the-neighbours")
def _() -> Vector:
    session = new_session().until(ServerState.SHARES)
    answers = session.answers()
    boxes = Shares.decode(session.body_of(answers[0]), session.limits).boxes
    wrong = session.signed_by(0, Kind.SHARES, Shares(boxes[1:]).encode(), session.transcript_of(answers[0]))
    return at_server(session, "MalformedMessage", receive(wrong), after="shares")


# --- inputs and bytes -------------------------------------------------------------------------------------------------


def bad_input(name: str, error: str, values: list[float]) -> None:
    def make() -> Vector:
        session = new_session()
        steps = (receive(session.inbox[0].data), {"submit": values})
        return at_client(session, error, *steps, after="advertised")

    FAILURES[name] = make


bad_input("input-out-of-range", "ValueOutOfRange", [0, 101])
bad_input("input-of-another-length", "WrongLength", [1, 2, 3])
bad_input("input-of-floats", "NotIntegers", [0.5, 1.0])


def bad_float(name: str, error: str, value: str) -> None:
    FAILURES[name] = lambda: {
        "participant": "fixed point",
        "clip_range": 8.0,
        "step": 0.5,
        "steps": [{"encode": ["0.25", value]}],
        "error": error,
    }


bad_float("not-a-number", "NotFinite", "nan")
bad_float("infinity", "NotFinite", "-inf")
bad_float("weight-out-of-range", "ValueOutOfRange", "8.5")


def bad_bytes(name: str, error: str, change: Callable[[Session, bytes], bytes]) -> None:
    def make() -> Vector:
        session = new_session().until(ServerState.SHARES)
        data = change(session, message_to(0, session.inbox))
        return at_client(session, error, receive(data), after="advertised")

    FAILURES[name] = make


bad_bytes("truncated-message", "MalformedMessage", lambda s, data: data[:-1])
bad_bytes("prolonged-message", "MalformedMessage", lambda s, data: data + b"\0")
bad_bytes("oversized-length", "MalformedMessage", lambda s, data: data[:72] + b"\xff\xff\xff\x7f" + data[76:])
bad_bytes("bit-flipped-message", "BadSignature", lambda s, data: data[:90] + bytes([data[90] ^ 1]) + data[91:])
bad_bytes("unknown-version", "UnknownVersion", lambda s, data: data[:4] + b"\x02" + data[5:])
bad_bytes("unknown-sender", "UnknownSender", lambda s, data: s.signed_by(1, Kind.KEY_BOOK, b"", bytes(32)))


@failure("tampered-masked-input")
def _() -> Vector:
    session = new_session().until(ServerState.MASKED_INPUTS)
    data = session.answers()[0]
    changed = data[:95] + bytes([data[95] ^ 1]) + data[96:]
    return at_server(session, "TamperedInput", receive(changed), after="masked inputs")


@failure("stranger-at-the-server")
def _() -> Vector:
    session = new_session()
    header = Header(Kind.ADVERTISE, 5, session.parameters.session_id, session.parameters.session_id)
    data = seal_frame(header, bytes(96), session.identities[0])
    return at_server(session, "UnknownSender", receive(data), after="keys")


@failure("server-named-as-a-client")
def _() -> Vector:
    session = new_session()
    header = Header(Kind.ADVERTISE, SERVER, session.parameters.session_id, session.parameters.session_id)
    return at_server(session, "UnknownSender", receive(seal_frame(header, bytes(96), session.operator)), after="keys")
