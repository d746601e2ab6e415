"""Sessions along a k-regular graph: who is whose neighbour, who decides it, and what neighbours are worth."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols import GraphDemand, Policy, RegularGraph, choose_graph, simulate
from securekd_protocols.books import CommitBook, FrameList, KeyBook, Revealed
from securekd_protocols.errors import (
    BadParameter,
    BadSignature,
    BrokenCommitment,
    GraphUnsafe,
    MalformedMessage,
    PolicyRefused,
    ThresholdUnsafe,
    TooFewSurvivors,
    TranscriptMismatch,
    WithheldReveal,
)
from securekd_protocols.frame import FRAME_IN_LIST
from securekd_protocols.graph import CompleteGraph, graph_seed, ring_graph
from securekd_protocols.messages import Advertise, Commit, Kind, ShareDelivery, SurvivorList, Unmask
from securekd_protocols.states import ClientState, ServerState
from tests.protocols.harness import (
    SMALL_RING,
    SMALL_RING_THRESHOLD,
    WIDE_RING,
    WIDE_RING_THRESHOLD,
    Session,
    message_to,
)

STAGES = ("commit", "share", "masked_input", "consistency", "unmask")


def ring_session(n=8, seed=b"", **kwargs):
    return Session(n=n, graph=SMALL_RING, threshold=SMALL_RING_THRESHOLD, seed=seed, **kwargs)


def wide_session(n=12, **kwargs):
    return Session(n=n, graph=WIDE_RING, threshold=WIDE_RING_THRESHOLD, **kwargs)


# --- the graph itself -------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.integers(3, 60), st.data())
def test_a_ring_is_regular_mutual_and_connected(seed, n, data):
    degree = 2 * data.draw(st.integers(1, (n - 1) // 2))
    graph = ring_graph(seed, n, degree)
    near = {index: graph.neighbours(index) for index in range(n)}
    assert all(len(peers) == degree and index not in peers for index, peers in near.items())
    assert all(index in near[peer] for index, peers in near.items() for peer in peers)
    reached, frontier = {0}, [0]
    while frontier:
        fresh = near[frontier.pop()] - reached
        reached |= fresh
        frontier += fresh
    assert reached == set(range(n))
    if degree == n - 1:
        assert near == {index: CompleteGraph(n).neighbours(index) for index in range(n)}


def test_the_order_is_uniform_enough():
    """Over 3,000 seeds each other client is as often a neighbour as any; 5 standard deviations, and fixed seeds."""
    counts = np.zeros(12, int)
    for number in range(3000):
        for peer in ring_graph(graph_seed(number.to_bytes(32, "big"), {0: bytes(32)}), 12, 2).neighbours(0):
            counts[peer] += 1
    expected = 3000 * 2 / 11
    assert counts[0] == 0
    assert np.abs(counts[1:] - expected).max() < 5 * np.sqrt(expected)


def test_one_reveal_changes_the_seed():
    reveals = {index: bytes([index]) * 32 for index in range(5)}
    seed = graph_seed(bytes(32), reveals)
    assert all(graph_seed(bytes(32), reveals | {index: b"x" * 32}) != seed for index in reveals)
    assert graph_seed(b"t" * 32, reveals) != seed


# --- honest sessions --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_sessions_with_dropouts_within_the_bound(data):
    n, dropouts = data.draw(st.integers(8, 14)), data.draw(st.integers(1, 2))
    vectors = {i: np.random.default_rng(i).integers(-50, 51, 4) for i in range(n)}
    silent = data.draw(st.dictionaries(st.integers(0, n - 1), st.sampled_from(STAGES), max_size=dropouts))
    policy = Policy(50, graph="regular", dropouts=dropouts, malicious_server=data.draw(st.booleans()))
    result = simulate(vectors, policy, dropouts=silent)
    assert result.graph.dropouts == dropouts
    assert result.survivors == tuple(i for i in range(n) if silent.get(i) not in STAGES[:3])
    assert (result.total == sum(vectors[i] for i in result.survivors)).all()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 9), st.sampled_from((*STAGES, "advertise")), min_size=2, max_size=8))
def test_more_dropouts_than_agreed_give_the_exact_sum_or_a_named_error(silent):
    vectors = {i: np.random.default_rng(i).integers(-50, 51, 4) for i in range(10)}
    try:
        result = simulate(vectors, Policy(50, graph="regular", dropouts=2), dropouts=silent)
    except WithheldReveal:
        assert "advertise" in silent.values()
        return
    except TooFewSurvivors:
        return
    assert (result.total == sum(vectors[i] for i in result.survivors)).all()


def test_beyond_a_hundred_clients_the_graph_is_regular_of_itself():
    vectors = {i: np.full(2, i) for i in range(101)}
    result = simulate(vectors, Policy(200), dropouts={5: "masked_input", 7: "commit"})
    assert result.graph == RegularGraph(22, 11)
    assert result.total.tolist() == [sum(range(101)) - 12] * 2
    assert "commit" in result.bytes_up


def test_a_hundred_clients_may_ask_for_a_regular_graph():
    assert Policy(1, graph="regular", colluders=10, restarts=1).graph_for(100) == (RegularGraph(32, 10, True, 1), 22)
    assert Policy(1).graph_for(100) == (None, 51)
    assert Policy(1, threshold=80).graph_for(101) == (None, 80)
    with pytest.raises(BadParameter):
        Policy(1, graph="regular", threshold=5)
    with pytest.raises(BadParameter):
        Policy(1, graph="star")


@pytest.mark.parametrize("stage", range(1, 6))
def test_several_neighbours_of_one_client_drop_out_at_once(stage):
    """Both of the clients that stand beside client 0 in the ring, at every stage after the reveal."""
    session = wide_session().until(ServerState.SHARES)
    order = session.server._collected.graph.order
    place = order.index(0)
    beside = {order[place - 1], order[(place + 1) % len(order)]}
    for number in range(1, 6):
        if session.server.state is not ServerState.FINISHED:
            session.stage(silent=beside if number >= stage else ())
    gone = beside if stage <= 2 else set()
    assert set(session.server.result.survivors) == set(range(12)) - gone
    assert (session.server.result.total == session.expected(set(range(12)) - gone)).all()


def test_a_client_deals_with_its_neighbours_only():
    session = wide_session().until(ServerState.UNMASKING)
    graph = session.server._collected.graph
    for index, client in enumerate(session.clients):
        near = graph.neighbours(index)
        assert client._accepted.pairs.keys() == client._accepted.held.keys() == near
        signers = {frame[6] for frame in session.frames_in(message_to(index, session.inbox))}
        assert signers == near


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "threshold", "error"),
    [
        (replace(SMALL_RING, degree=2), 2, GraphUnsafe),
        (replace(SMALL_RING, degree=3), 2, GraphUnsafe),
        (replace(SMALL_RING, degree=8), 5, GraphUnsafe),
        (SMALL_RING, 2, GraphUnsafe),
        (SMALL_RING, 4, GraphUnsafe),
        (replace(SMALL_RING, dropouts=2), 3, GraphUnsafe),
        (replace(SMALL_RING, dropouts=0), 3, BadParameter),
        (replace(SMALL_RING, restarts=0), 3, BadParameter),
        (replace(SMALL_RING, restarts=2**16), 3, BadParameter),
    ],
)
def test_graphs_that_are_refused(graph, threshold, error):
    with pytest.raises(error):
        replace(ring_session().parameters, graph=graph, threshold=threshold)


def test_two_honest_survivors_at_least():
    parameters = ring_session().parameters
    demand = GraphDemand(8, 1, 6, malicious_server=False)
    with pytest.raises(GraphUnsafe):
        choose_graph(demand)
    with pytest.raises((ThresholdUnsafe, GraphUnsafe)):
        replace(parameters, graph=RegularGraph(6, 6, False), colluders=1, threshold=2)


def test_a_graph_that_trusts_the_server_is_refused_by_a_client_that_does_not():
    trusting = replace(SMALL_RING, malicious_server=False)
    session = Session(n=8, graph=trusting, threshold=2)
    with pytest.raises(PolicyRefused):
        session.answers()
    naive = {i: {"malicious_server": False} for i in range(8)}
    session = Session(n=8, graph=trusting, threshold=2, policies=naive).until(ServerState.FINISHED)
    assert (session.server.result.total == session.expected(range(8))).all()


def test_a_graph_in_pieces_is_refused_by_every_client():
    """A ring of degree two falls apart as soon as two clients do; the invitation alone is refused."""
    session = ring_session()
    body = bytearray(session.parameters.encoded)
    position = body.index((4).to_bytes(2, "little") + (1).to_bytes(2, "little") + (16).to_bytes(2, "little"))
    body[position] = 2
    header_id = session.parameters.session_id
    with pytest.raises(GraphUnsafe):
        session.clients[0].receive(session.forged(Kind.INVITATION, bytes(body), header_id))
    assert session.clients[0].state is ClientState.INVITED
    with pytest.raises(GraphUnsafe):
        choose_graph(GraphDemand(8, 4, 4))


# --- commit and reveal ------------------------------------------------------------------------------------------------


def refused(client, data, error):
    with pytest.raises(error) as caught:
        client.receive(data)
    assert type(caught.value) is error
    assert client.state is ClientState.ABORTED


def changed_commit_book(session, change):
    data = message_to(0, session.inbox)
    book = CommitBook.decode(session.body_of(data), session.limits)
    return session.forged(Kind.COMMIT_BOOK, CommitBook(change(book.commitments)).encode(), session.transcript_of(data))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: {i: c[i] for i in c if i}, TranscriptMismatch),
        (lambda c: c | {0: bytes(32)}, TranscriptMismatch),
        (lambda c: {i: c[i] for i in range(6)}, TooFewSurvivors),
    ],
)
def test_commit_books_that_are_refused(change, error):
    session = ring_session().until(ServerState.KEYS)
    refused(session.clients[0], changed_commit_book(session, change), error)


def test_different_commit_books_part_the_clients():
    """The server tells client 0 another commitment for client 5: no neighbour's keys are for the same session."""
    session = ring_session().until(ServerState.KEYS)
    lie = changed_commit_book(session, lambda c: c | {5: bytes(32)})
    advertise = session.clients[0].receive(lie)[0]
    with pytest.raises(TranscriptMismatch):
        session.server.receive(advertise)


def test_a_client_that_withholds_its_reveal_ends_the_session():
    session = ring_session().until(ServerState.KEYS)
    with pytest.raises(WithheldReveal):
        session.stage(silent={3})
    assert session.server.state is ServerState.ABORTED


def test_a_client_that_reveals_something_else_is_refused_and_then_has_withheld():
    session = ring_session().until(ServerState.KEYS)
    answers = session.answers()
    body = session.body_of(answers[3])
    wrong = session.signed_by(3, Kind.ADVERTISE, body[:96] + bytes(32), session.transcript_of(answers[3]))
    for data in (*answers[:3], *answers[4:]):
        session.server.receive(data)
    with pytest.raises(BrokenCommitment):
        session.server.receive(wrong)
    with pytest.raises(WithheldReveal):
        session.server.close_phase()


def changed_key_book(session, change):
    data = message_to(0, session.inbox)
    book = KeyBook.decode(session.body_of(data), session.limits, FRAME_IN_LIST)
    return session.forged(Kind.KEY_BOOK, change(session, book).encode(), session.transcript_of(data))


def without_a_neighbour(session, book):
    kept = [f for f in book.frames if f[6] == 0]
    others = [f for f in book.frames if f[6] != 0]
    return replace(book, frames=tuple(sorted([*kept, *others[1:]], key=lambda f: f[6])))


def with_row(book, index, **change):
    rows = list(book.revealed)
    rows[index] = replace(rows[index], **change)
    return replace(book, revealed=tuple(rows))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s, b: replace(b, revealed=b.revealed[:-1]), WithheldReveal),
        (lambda s, b: replace(b, revealed=()), WithheldReveal),
        (lambda s, b: replace(b, revealed=(*b.revealed, Revealed(bytes(32), bytes(32)))), MalformedMessage),
        (lambda s, b: with_row(b, 5, reveal=bytes(32)), BrokenCommitment),
        (without_a_neighbour, WithheldReveal),
        (lambda s, b: with_row(b, 0, digest=bytes(32)), TranscriptMismatch),
        (lambda s, b: replace(b, frames=(*b.frames[:-1], b.frames[-1][:-1] + b"?")), BadSignature),
        (lambda s, b: replace(b, frames=tuple(f for f in b.frames if f[6])), TranscriptMismatch),
    ],
)
def test_key_books_that_are_refused(change, error):
    session = ring_session().until(ServerState.SHARES)
    refused(session.clients[0], changed_key_book(session, change), error)


def test_the_server_can_not_swap_a_stranger_s_keys():
    """The digest of somebody far away on the ring is changed for one client: its transcript is then its own."""
    session = wide_session().until(ServerState.SHARES)
    near = session.server._collected.graph.neighbours(0) | {0}
    stranger = min(set(range(12)) - near)
    lie = changed_key_book(session, lambda s, b: with_row(b, stranger, digest=bytes(32)))
    shares = session.clients[0].receive(lie)[0]
    with pytest.raises(TranscriptMismatch):
        session.server.receive(shares)


# --- neighbours' signatures -------------------------------------------------------------------------------------------


def test_only_neighbours_signatures_count():
    """Every stranger on the ring signs, and two of six neighbours: that is not four of six."""
    session = wide_session().until(ServerState.SIGNATURES)
    signatures = session.answers()
    near = sorted(session.server._collected.graph.neighbours(0))
    strangers = [i for i in range(1, 12) if i not in near]
    for counted, error in ((near[:3], TooFewSurvivors), (near[:4], None)):
        client = session.clients[0]
        chosen = sorted([*strangers, *counted])
        body = FrameList(tuple(signatures[i] for i in chosen)).encode()
        proof = session.forged(Kind.CONSISTENCY_PROOF, body, session.transcript_of(signatures[0]))
        if error:
            state, memory = client._state, client._accepted
            refused(client, proof, error)
            client._state, client._accepted = state, memory
        else:
            answer = Unmask.decode(session.body_of(client.receive(proof)[0]), session.limits)
            assert [held.owner for held in answer.seeds] == near


def test_too_few_neighbours_at_each_stage():
    session = wide_session().until(ServerState.MASKED_INPUTS)
    near = sorted(session.server._collected.graph.neighbours(0))
    sharers = sorted(set(range(12)) - set(near[:2]))
    data = message_to(0, session.inbox)
    delivery = ShareDelivery.decode(session.body_of(data), session.limits)
    boxes = tuple(box for box in delivery.boxes if box.peer not in near[:2])
    fine = session.forged(
        Kind.SHARE_DELIVERY, ShareDelivery(tuple(sharers), boxes).encode(), session.transcript_of(data)
    )
    masked = session.clients[0].receive(fine)[0]
    survivors = sorted(set(sharers) - {near[2]})
    few = session.forged(Kind.SURVIVOR_LIST, SurvivorList(tuple(survivors)).encode(), session.transcript_of(masked))
    refused(session.clients[0], few, TooFewSurvivors)


def test_a_neighbour_alive_for_some_and_dead_for_others():
    """However the server parts the neighbours of a client, it never gets threshold shares of both kinds."""
    for split in range(1, 6):
        session = wide_session(seed=bytes([split])).until(ServerState.SIGNATURES)
        near = sorted(session.server._collected.graph.neighbours(0))
        told_alive = {0, *near[:split]}
        transcript = session.transcript_of(session.inbox[0].data)
        lists = {True: tuple(range(12)), False: tuple(range(1, 12))}
        signatures = {True: [], False: []}
        for index in range(12):
            camp = index in told_alive or (index not in near and split > 3)
            message = session.forged(Kind.SURVIVOR_LIST, SurvivorList(lists[camp]).encode(), transcript)
            signatures[camp] += session.clients[index].receive(message) if camp or index else []
        seeds = keys = 0
        for frames in signatures.values():
            proof = session.forged(
                Kind.CONSISTENCY_PROOF, FrameList(tuple(frames)).encode(), session.transcript_of(frames[0])
            )
            for frame in frames:
                client = session.clients[frame[6]]
                try:
                    answer = Unmask.decode(session.body_of(client.receive(proof)[0]), session.limits)
                except TooFewSurvivors:
                    continue
                seeds += any(held.owner == 0 for held in answer.seeds)
                keys += any(held.owner == 0 for held in answer.keys)
        assert min(seeds, keys) < session.parameters.threshold


def test_a_commitment_is_32_bytes_and_an_advertisement_128():
    session = ring_session()
    commits = session.stage()
    assert {len(session.body_of(data)) for data in commits} == {32}
    assert Commit.decode(session.body_of(commits[0]), session.limits).commitment == session.body_of(commits[0])
    advertised = session.stage()
    assert {len(session.body_of(data)) for data in advertised} == {128}
    assert len({Advertise.decode(session.body_of(data), session.limits).reveal for data in advertised}) == 8
