"""What a client tells the server alone is tagged: nobody else can say it, and a wrong input leaves no trace."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols.errors import BadSignature, OutOfOrder, ProtocolError, TamperedInput, UnknownSender
from securekd_protocols.frame import SIGNATURE_BYTES, TAGGED, Header, seal_frame, seal_tagged_frame
from securekd_protocols.messages import Kind
from securekd_protocols.states import ServerState
from tests.protocols.harness import Session

COLLECTING = {
    ServerState.SHARES: Kind.SHARES,
    ServerState.MASKED_INPUTS: Kind.MASKED_INPUT,
    ServerState.UNMASKING: Kind.UNMASK,
}


def refused(session, data, error):
    before = session.server.waiting_for, session.server._collected.total.copy()
    with pytest.raises(error):
        session.server.receive(data)
    assert session.server.waiting_for == before[0]
    assert (session.server._collected.total == before[1]).all()


def finish(session, answers):
    for data in answers:
        session.inbox += session.to_server(data)
    session.until(ServerState.FINISHED)
    result = session.server.result
    assert (result.total == session.expected(result.survivors)).all()


def test_each_kind_that_is_tagged_is_tried():
    assert set(COLLECTING.values()) == TAGGED


@pytest.mark.parametrize("state", COLLECTING)
def test_a_tag_is_of_its_client_and_a_signature_is_none(state):
    session = Session(n=4, d=3).until(state)
    answers = session.answers()
    kind, body, transcript = COLLECTING[state], session.body_of(answers[1]), session.transcript_of(answers[1])
    header = Header(kind, 1, session.parameters.session_id, transcript)
    others = session.server._collected.secret_with(2)
    refused(session, seal_tagged_frame(header, (body,), others), BadSignature)
    refused(session, seal_frame(header, body, session.identities[1]), BadSignature)
    refused(session, answers[1][:-SIGNATURE_BYTES] + answers[2][-SIGNATURE_BYTES:], BadSignature)
    finish(session, answers)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(COLLECTING, key=lambda state: state.value)), st.data())
def test_no_bit_of_a_tagged_frame_can_be_changed(state, data):
    session = Session(n=3, d=2).until(state)
    frame = bytearray(session.answers()[0])
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << (bit % 8)
    refused(session, bytes(frame), ProtocolError)


def test_a_tag_under_a_key_that_was_not_advertised():
    session = Session(n=4)
    header = Header(Kind.SHARES, 1, session.parameters.session_id, session.parameters.session_id)
    refused(session, seal_tagged_frame(header, (bytes(2),), bytes(32)), OutOfOrder)
    stranger = Header(Kind.SHARES, 4, session.parameters.session_id, session.parameters.session_id)
    refused(session, seal_tagged_frame(stranger, (bytes(2),), bytes(32)), UnknownSender)


@pytest.mark.parametrize("bits", [16, 24, 32, 64])
def test_an_input_that_does_not_authenticate_leaves_no_trace_in_the_sum(bits):
    session = Session(n=4, d=100, ring_bits=bits).until(ServerState.MASKED_INPUTS)
    answers = session.answers()
    end = len(answers[0]) - SIGNATURE_BYTES
    for at in (end - 1, end - 50, end - 100 * bits // 8):
        refused(session, answers[0][:at] + bytes([answers[0][at] ^ 1]) + answers[0][at + 1 :], TamperedInput)
    finish(session, answers)
