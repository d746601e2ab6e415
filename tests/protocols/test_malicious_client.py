"""A client that lies to an honest server: a named error, and never a wrong sum."""

import pytest

from securekd_protocols.errors import (
    InconsistentSurvivors,
    MalformedMessage,
    OutOfOrder,
    ReplayedMessage,
    TamperedShare,
    UnknownSender,
)
from securekd_protocols.messages import Box, HeldShare, Kind, Shares, Unmask
from securekd_protocols.shamir import PRIME
from securekd_protocols.states import ServerState
from tests.protocols.harness import Session


def spoiled(spoil_key, difference):
    """A session at its last message but one, in which client 0 answers with a share that is off by `difference`."""
    session = Session(n=5)
    session.stage()
    session.stage()
    session.stage(silent={4})
    session.stage()
    answers = session.answers()
    message = Unmask.decode(session.body_of(answers[0]), session.limits)
    seeds, keys = list(message.seeds), list(message.keys)
    shares = keys if spoil_key else seeds
    shares[0] = HeldShare(shares[0].owner, (shares[0].share + difference) % PRIME)
    body = Unmask(tuple(seeds), tuple(keys)).encode()
    for data in (session.signed_by(0, Kind.UNMASK, body, session.transcript_of(answers[0])), *answers[1:-1]):
        session.server.receive(data)
    return session.server, answers[-1]


@pytest.mark.parametrize("spoil_key", [False, True])
@pytest.mark.parametrize("difference", [1, -1, 2**100, 2**255])
def test_a_wrong_unmasking_share_never_gives_a_wrong_sum(spoil_key, difference):
    """Off by one, the recovered scalar is off by four (the Lagrange coefficient): bits that X25519 itself ignores."""
    server, last = spoiled(spoil_key, difference)
    with pytest.raises(TamperedShare):
        server.receive(last)
    assert server.state is ServerState.ABORTED


def test_what_a_client_must_not_send_to_the_server():
    session = Session(n=5).until(ServerState.SHARES)
    shares = session.answers()
    transcript = session.transcript_of(shares[0])
    boxes = Shares.decode(session.body_of(shares[0]), session.limits).boxes
    for wrong in (boxes[1:], (Box(0, boxes[0].sealed), *boxes)):
        with pytest.raises(MalformedMessage):
            session.server.receive(session.signed_by(0, Kind.SHARES, Shares(wrong).encode(), transcript))
    for data in shares[:2]:
        session.inbox += session.server.receive(data)
    with pytest.raises(ReplayedMessage):
        session.server.receive(shares[0])
    with pytest.raises(OutOfOrder):
        session.server.receive(session.signed_by(0, Kind.SHARES, Shares(boxes[1:]).encode(), transcript))
    with pytest.raises(UnknownSender):
        session.server.receive(session.server.invitation())
    for data in shares[2:]:
        session.inbox += session.server.receive(data)
    masked = session.answers()
    short = session.signed_by(0, Kind.MASKED_INPUT, session.body_of(masked[0])[:-4], session.transcript_of(masked[0]))
    with pytest.raises(MalformedMessage):
        session.server.receive(short)
    for data in masked:
        session.inbox += session.server.receive(data)
    session.stage()
    answers = session.answers()
    message = Unmask.decode(session.body_of(answers[0]), session.limits)
    transcript = session.transcript_of(answers[0])
    fewer = Unmask(message.seeds[1:], message.keys)
    wrong_side = Unmask(message.seeds[1:], message.seeds[:1])
    for changed in (fewer, wrong_side):
        with pytest.raises(MalformedMessage):
            session.server.receive(session.signed_by(0, Kind.UNMASK, changed.encode(), transcript))
    for data in answers:
        session.server.receive(data)
    assert (session.server.result.total == session.expected(range(5))).all()


def test_signing_another_survivor_set_is_noticed_by_an_honest_server():
    session = Session(n=5).until(ServerState.SIGNATURES)
    with pytest.raises(InconsistentSurvivors):
        session.server.receive(session.signed_by(0, Kind.CONSISTENCY, b"", b"x" * 32))
    session.until(ServerState.FINISHED)
