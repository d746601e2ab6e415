"""Crash and recovery: a restored client goes on with the input it had, and with no other."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols import CohortRule, Diary, MaskingClient, SecretState
from securekd_protocols.errors import (
    BadSavedState,
    CallOutOfOrder,
    OutOfOrder,
    SecondInput,
    SecondUnmaskRequest,
    SignedBefore,
)
from securekd_protocols.messages import Kind, SurvivorList
from securekd_protocols.states import ClientState, ServerState
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session, message_to

GRAPHS = {"complete": {"n": 5}, "regular": {"n": 8, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD}}


def crash(session, index, policy=None):
    """The process of one client dies, and another takes over from its saved state."""
    client = session.clients[index]
    restored = MaskingClient.restore(
        client.save(),
        session.identities[index],
        policy or client._policy,
        insecure_randomness_for_tests=session.random,
    )
    session.clients[index] = restored
    return restored


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("bits", [24, 32])
def test_everybody_crashes_after_every_stage(graph, bits):
    session = Session(**GRAPHS[graph], ring_bits=bits)
    while session.server.state is not ServerState.FINISHED:
        session.stage()
        for index, client in enumerate(session.clients):
            if client.state is not ClientState.UNMASKED:
                assert crash(session, index).state is client.state
    assert (session.server.result.total == session.expected(range(len(session.clients)))).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=6), st.integers(0, 4))
def test_crashes_at_random_with_a_dropout(crashes, silent):
    session, stage = Session(n=5), 0
    while session.server.state is not ServerState.FINISHED:
        session.stage(silent={silent} if stage >= 2 else ())
        for when, index in crashes:
            if when == stage and index != silent and session.clients[index].state is not ClientState.UNMASKED:
                crash(session, index)
        stage += 1
    assert (session.server.result.total == session.expected(set(range(5)) - {silent})).all()


@pytest.mark.parametrize("stages", range(1, 5))
def test_a_restored_client_takes_no_second_input(stages):
    session = Session(n=5)
    for _ in range(stages):
        session.stage()
    restored = crash(session, 0)
    for vector in (session.vectors[0], session.vectors[1]):
        with pytest.raises(SecondInput):
            restored.submit(vector)


def test_a_client_restored_from_an_old_state_masks_the_same_input_again():
    """Whoever rolls a client back gets the same bytes for the same shares, whatever it would like to submit."""
    session = Session(n=5)
    session.stage()
    session.stage()
    old = session.clients[0].save()
    delivery = message_to(0, session.inbox)
    first = session.clients[0].receive(delivery)
    again = MaskingClient.restore(old, session.identities[0], session.clients[0]._policy)
    with pytest.raises(SecondInput):
        again.submit(np.zeros(8, int))
    assert again.receive(delivery) == first
    with pytest.raises(OutOfOrder):
        again.receive(delivery)


def test_no_state_is_saved_that_could_take_two_inputs():
    session = Session(n=5)
    client = session.clients[0]
    with pytest.raises(CallOutOfOrder):
        client.save()
    client.receive(message_to(0, session.inbox))
    with pytest.raises(CallOutOfOrder):
        client.save()
    client.submit(session.vectors[0])
    client.save()


def test_a_client_restored_from_an_old_state_signs_no_second_survivor_set():
    diary = Diary(CohortRule(1))
    session = Session(n=5, policies={0: {"diary": diary}}).until(ServerState.SIGNATURES)
    policy, old = session.clients[0]._policy, session.clients[0].save()
    listed = message_to(0, session.inbox)
    other = session.forged(Kind.SURVIVOR_LIST, SurvivorList((0, 1, 2, 3)).encode(), session.transcript_of(listed))
    signature = session.clients[0].receive(listed)
    for message, error in ((other, SignedBefore), (listed, None)):
        restored = MaskingClient.restore(old, session.identities[0], policy)
        if error:
            with pytest.raises(error):
                restored.receive(message)
            assert restored.state is ClientState.ABORTED
        else:
            assert restored.receive(message) == signature


def test_after_the_end_nothing_is_left_to_save():
    session = Session(n=5).until(ServerState.UNMASKING)
    request = message_to(0, session.inbox)
    session.until(ServerState.FINISHED)
    with pytest.raises(CallOutOfOrder):
        session.clients[0].save()
    with pytest.raises(SecondUnmaskRequest):
        session.clients[0].receive(request)


def test_a_saved_state_says_that_it_is_secret_and_does_not_show_it():
    session = Session(n=5)
    session.stage()
    state = session.clients[0].save()
    assert b"SECRET" in state.secret_bytes[:20]
    assert session.clients[0]._accepted.secrets.seed in state.secret_bytes
    assert len(repr(state)) < 40


@pytest.fixture(scope="module")
def saved():
    session = Session(n=3)
    session.stage()
    return session, session.clients[0].save().secret_bytes


def with_checksum(body):
    return body + hashlib.sha256(body).digest()


@given(st.data())
def test_damaged_states_are_refused(saved, data):
    session, whole = saved
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:position] + bytes([whole[position] ^ data.draw(st.integers(1, 255))]) + whole[position + 1 :]
    for junk in (flipped, whole[:position], whole + b"!"):
        with pytest.raises(BadSavedState):
            MaskingClient.restore(SecretState(junk), session.identities[0], session.clients[0]._policy)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:17] + b"\x01" + body[18:],  # another release
        lambda body: body[:18] + b"\x02" + body[19:],
        lambda body: body + b"!",
        lambda body: body[:-1],
        lambda body: body[:23] + b"UNHEARD_OF"[: len("ADVERTISED")] + body[33:],
    ],
)
def test_states_of_another_make_are_refused(saved, change):
    session, whole = saved
    junk = SecretState(with_checksum(change(whole[:-32])))
    with pytest.raises(BadSavedState):
        MaskingClient.restore(junk, session.identities[0], session.clients[0]._policy)


def test_another_client_s_state_is_refused(saved):
    session, whole = saved
    with pytest.raises(BadSavedState):
        MaskingClient.restore(SecretState(whole), session.identities[1], session.clients[0]._policy)
