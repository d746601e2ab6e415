"""The table itself, and that client and server obey it."""

import pytest

from securekd_protocols.errors import OutOfOrder, ProtocolError, ReplayedMessage, SecondUnmaskRequest
from securekd_protocols.messages import Kind
from securekd_protocols.states import (
    CLIENT_STEPS,
    SERVER_STEPS,
    STAGE_OF,
    ClientState,
    GraphKind,
    ServerState,
    Stage,
    first_server_state,
)
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session, message_to


@pytest.mark.parametrize("graph", GraphKind)
def test_both_sides_of_the_table_fit(graph):
    client = [step for step in CLIENT_STEPS if step.only in (None, graph)]
    server = [step for step in SERVER_STEPS if step.only in (None, graph)]
    assert [step.sends for step in client] == [step.collects for step in server]
    assert [step.reads for step in client[1:]] == [step.sends for step in server[:-1]]
    for steps in (client, server):
        assert [step.then for step in steps[:-1]] == [step.state for step in steps[1:]]
    assert server[0].state is first_server_state(graph)


def test_every_kind_and_stage_stands_in_the_table():
    assert set(STAGE_OF) == set(Kind)
    assert set(STAGE_OF.values()) == set(Stage)


GRAPHS = {"complete": (3, None, None), "regular": (8, SMALL_RING, SMALL_RING_THRESHOLD)}


def new_session(graph):
    n, ring, threshold = GRAPHS[graph]
    return Session(n=n, graph=ring, threshold=threshold, seed=b"same")


CASES = [("complete", due) for due in range(5)] + [("regular", due) for due in range(6)]


def everything_sent_in(session):
    """One message of each kind to client 0, and one of each kind from it, in order."""
    down, up = [message_to(0, session.inbox)], []
    while session.server.state is not ServerState.FINISHED:
        up.append(session.stage()[0])
        if session.inbox:
            down.append(message_to(0, session.inbox))
    return down, up


@pytest.mark.parametrize(("graph", "due"), CASES)
def test_a_client_refuses_every_message_that_is_not_due_and_goes_on(graph, due):
    down, _ = everything_sent_in(new_session(graph))
    session = new_session(graph)
    for _ in range(due):
        session.stage()
    client, before = session.clients[0], session.clients[0].state
    for kind, data in enumerate(down):
        if kind != due:
            with pytest.raises((OutOfOrder, ProtocolError)):
                client.receive(data)
            assert client.state is before
    while session.server.state is not ServerState.FINISHED:
        session.stage()
    assert (session.server.result.total == session.expected(range(len(session.clients)))).all()


@pytest.mark.parametrize(("graph", "due"), CASES)
def test_a_server_refuses_every_message_that_is_not_due_and_goes_on(graph, due):
    _, up = everything_sent_in(new_session(graph))
    session = new_session(graph)
    for _ in range(due):
        session.stage()
    before = session.server.state
    for kind, data in enumerate(up):
        if kind != due:
            with pytest.raises((OutOfOrder, ReplayedMessage)):
                session.server.receive(data)
            assert session.server.state is before
    while session.server.state is not ServerState.FINISHED:
        session.stage()
    for data in up:
        with pytest.raises(OutOfOrder):
            session.server.receive(data)


def test_a_second_unmask_request_is_refused():
    session = Session(n=3).until(ServerState.UNMASKING)
    request = message_to(0, session.inbox)
    session.stage()
    assert session.clients[0].state is ClientState.UNMASKED
    with pytest.raises(SecondUnmaskRequest):
        session.clients[0].receive(request)
