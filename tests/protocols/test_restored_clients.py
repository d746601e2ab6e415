"""Clients that are restored from old states, by whoever can, and a malicious server that makes the most of it.

Two stories told to one client would give its input away: under each it would mask the same input with the same seed,
and the shares of that seed are made but once. A diary knows one story a session. The attacks are played to the end:
without diaries they recover inputs exactly, with diaries the second story is refused.
"""

from dataclasses import replace

import pytest

from securekd_protocols import CohortRule, Diary, LocalPolicy, MaskingClient
from securekd_protocols.books import CommitBook, KeyBook
from securekd_protocols.errors import (
    AnsweredBefore,
    BadParameter,
    BadSavedState,
    CallOutOfOrder,
    ContextMismatch,
    PolicyRefused,
    SignedBefore,
)
from securekd_protocols.frame import FRAME_IN_LIST
from securekd_protocols.graph import graph_seed, ring_graph
from securekd_protocols.keys import commit_to_reveal
from securekd_protocols.messages import Kind, ShareDelivery
from securekd_protocols.states import ClientState, ServerState
from securekd_protocols.transcript import with_commitments
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session, message_to
from tests.protocols.malicious import secret_of, sum_behind, tell_survivors, unmask

ATTACKED = [(4, 1, 3, 1), (10, 1, 6, 1), (10, 3, 7, 1), (5, 1, 4, 2)]  # n, C, t, r restored clients: 2t ≤ n + C + r
RING = {"n": 8, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD}
GRAPHS = {"complete": {"n": 5}, "regular": RING}


def with_diaries(n, **policy):
    return {i: {"diary": Diary(CohortRule(1)), **policy} for i in range(n)}


def restored(session, state, index=0, policy=None):
    """The client of a server that rolls states back, and not the diary."""
    policy = policy or session.clients[index]._policy
    return MaskingClient.restore(state, session.identities[index], policy, insecure_randomness_for_tests=session.random)


def delivery_of(session, index, sharers):
    """A share delivery for one client, of fewer sharers than there are."""
    data = message_to(index, session.inbox)
    genuine = ShareDelivery.decode(session.body_of(data), session.limits)
    boxes = tuple(box for box in genuine.boxes if box.peer in sharers)
    body = ShareDelivery(tuple(sorted(sharers)), boxes).encode()
    return session.forged(Kind.SHARE_DELIVERY, body, session.transcript_of(data))


def opened_by_masking_twice(session, victims):
    """The sum of the victims' inputs, who mask for a few sharers, and then, restored, for everybody."""
    n, colluders, threshold = session.parameters.clients, session.parameters.colluders, session.parameters.threshold
    session.until(ServerState.MASKED_INPUTS)
    colluding, dead = set(range(n - colluders, n)), set(range(victims, threshold - colluders))
    few, survivors = set(range(victims)) | dead | colluding, sorted(set(range(n)) - dead)
    assert len(few) == threshold
    memories = {i: client._accepted for i, client in enumerate(session.clients)}
    advertised = {i: memory.own_advertise for i, memory in memories.items()}
    masked = {}
    for victim in range(victims):
        state = session.clients[victim].save()
        (masked[victim],) = session.clients[victim].receive(delivery_of(session, victim, few))
        session.clients[victim] = restored(session, state, victim)
    session.answers()
    signatures = [tell_survivors(session, i, survivors) for i in survivors]
    answers = {i: unmask(session, i, signatures) for i in survivors}
    seeds = {i: secret_of(session, i, "seeds", answers) for i in masked}
    keys = {i: memories[i].secrets.mask_key.private for i in colluding}
    keys |= {i: secret_of(session, i, "keys", answers) for i in dead}
    return sum_behind(session, masked, seeds, keys, advertised, dict.fromkeys(masked, few))


@pytest.mark.parametrize(("n", "colluders", "threshold", "victims"), ATTACKED)
def test_without_a_diary_a_client_that_masks_twice_gives_its_input_away(n, colluders, threshold, victims):
    session = Session(n=n, colluders=colluders, threshold=threshold)
    assert (opened_by_masking_twice(session, victims) == session.expected(range(victims))).all()


@pytest.mark.parametrize(("n", "colluders", "threshold", "victims"), ATTACKED)
def test_with_a_diary_a_restored_client_masks_for_one_set_of_sharers(n, colluders, threshold, victims):
    session = Session(n=n, colluders=colluders, threshold=threshold, policies=with_diaries(n))
    with pytest.raises(AnsweredBefore, match="MASKED_INPUT"):
        opened_by_masking_twice(session, victims)


# --- one story at every stage -----------------------------------------------------------------------------------------


def test_without_diaries_a_server_that_restores_everybody_chooses_the_graph():
    """It has seen all reveals for one commit book, and makes another in which its colluder's is the last word."""
    ring = Session(**RING).until(ServerState.KEYS)
    honest, session_id = range(7), ring.parameters.session_id
    reveals = {i: ring.clients[i]._accepted.secrets.reveal for i in honest}
    states = {i: ring.clients[i].save() for i in honest}
    commitments = CommitBook.decode(ring.body_of(ring.inbox[0].data), ring.limits).commitments

    def book_with(reveal):
        return commitments | {7: commit_to_reveal(session_id, 7, reveal)}

    def neighbours_with(reveal):
        seed = graph_seed(with_commitments(session_id, book_with(reveal)), reveals | {7: reveal})
        return ring_graph(seed, 8, SMALL_RING.degree).neighbours(0)

    ring.answers(silent={7})  # what it reads the reveals in
    chosen = next(r for r in (bytes([x]) * 32 for x in range(256)) if neighbours_with(r) == {1, 2, 3, 7})
    other = ring.forged(Kind.COMMIT_BOOK, CommitBook(book_with(chosen)).encode(), session_id)
    for index in honest:
        client = restored(ring, states[index], index)
        client.receive(other)
        assert client.state is ClientState.ADVERTISED


def test_a_restored_client_reveals_its_part_of_one_graph_only():
    ring = Session(**RING, policies=with_diaries(8)).until(ServerState.KEYS)
    state, first = ring.clients[0].save(), message_to(0, ring.inbox)
    advertised = ring.clients[0].receive(first)
    commitments = CommitBook.decode(ring.body_of(first), ring.limits).commitments
    for changed in (commitments | {7: bytes(32)}, {i: commitments[i] for i in range(7)}):
        other = ring.forged(Kind.COMMIT_BOOK, CommitBook(changed).encode(), ring.transcript_of(first))
        client = restored(ring, state)
        with pytest.raises(AnsweredBefore, match="ADVERTISE"):
            client.receive(other)
        assert client.state is ClientState.ABORTED
    assert restored(ring, state).receive(first) == advertised


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_restored_client_shares_its_secrets_among_one_set_of_keys(graph):
    session = Session(**GRAPHS[graph], policies=with_diaries(8)).until(ServerState.SHARES)
    state, first = session.clients[0].save(), message_to(0, session.inbox)
    (sent,) = session.clients[0].receive(first)
    book = KeyBook.decode(session.body_of(first), session.limits, FRAME_IN_LIST)
    other = KeyBook(session.clients[1]._accepted.own_advertise.share_key, book.revealed, book.frames).encode()
    assert restored(session, state).receive(first)[0][:76] == sent[:76]
    client = restored(session, state)
    with pytest.raises(AnsweredBefore, match="SHARES"):
        client.receive(session.forged(Kind.KEY_BOOK, other, session.transcript_of(first)))


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_restored_client_masks_for_one_set_of_sharers(graph):
    session = Session(**GRAPHS[graph], policies=with_diaries(8)).until(ServerState.MASKED_INPUTS)
    state, first = session.clients[0].save(), message_to(0, session.inbox)
    masked = session.clients[0].receive(first)
    sharers = set(range(session.parameters.clients))
    for left_out in sharers - {0}:
        client = restored(session, state)
        with pytest.raises(AnsweredBefore, match="MASKED_INPUT"):
            client.receive(delivery_of(session, 0, sharers - {left_out}))
        assert client.state is ClientState.ABORTED
    assert restored(session, state).receive(first) == masked


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_restored_client_signs_one_set_of_survivors(graph):
    session = Session(**GRAPHS[graph], policies=with_diaries(8)).until(ServerState.SIGNATURES)
    state, everybody = session.clients[0].save(), set(range(session.parameters.clients))
    (first,) = [tell_survivors(session, 0, everybody)]
    for left_out in (2, 3, 4):
        session.clients[0] = restored(session, state)
        with pytest.raises(SignedBefore):
            tell_survivors(session, 0, everybody - {left_out})
    session.clients[0] = restored(session, state)
    assert tell_survivors(session, 0, everybody) == first


def test_two_processes_that_accept_one_invitation_share_and_mask_once():
    """The one that crashed before it was saved has advertised other keys than the one that took over."""
    session = Session(n=5, policies=with_diaries(5))
    policy, invitation = session.clients[0]._policy, session.inbox[0].data
    second = MaskingClient(session.identities[0], policy)
    (other,) = second.receive(invitation)
    second.submit(session.vectors[0])
    session.until(ServerState.SHARES)
    book = message_to(0, session.inbox)
    frames = (other, *session.frames_in(book)[1:])
    session.clients[0].receive(book)
    with pytest.raises(AnsweredBefore, match="SHARES"):
        second.receive(session.proof(list(frames)))


# --- what is on disk when ---------------------------------------------------------------------------------------------


class Disk:
    """Where a diary is kept: the bytes that a crash leaves, or no room for any."""

    def __init__(self):
        self.data, self.full = b"", False

    def __call__(self, data):
        if self.full:
            raise OSError("no space left on device")
        self.data = data

    def policy_of(self, session, index=0) -> LocalPolicy:
        """As the next process has it."""
        policy = dict(vars(session.clients[index]._policy))
        return LocalPolicy(**policy | {"diary": Diary.load(self.data, CohortRule(1), keep=self)})


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_diary_is_on_disk_before_anything_is_sent_that_it_is_about(graph):
    """After a crash between the note and the message, at every stage, the same is sent again, and nothing else."""
    disk = Disk()
    policies = {0: {"diary": Diary(CohortRule(1), keep=disk)}}
    session = Session(**GRAPHS[graph], policies=policies).until(ServerState.SHARES)
    while session.server.state is not ServerState.FINISHED:
        message = message_to(0, session.inbox)
        state, before = session.clients[0].save(), disk.data
        session.clients[0].receive(message)  # and the process dies before it sends the answer
        assert disk.data != before
        session.clients[0] = restored(session, state, policy=disk.policy_of(session))
        session.stage()
    assert (session.server.result.total == session.expected(range(session.parameters.clients))).all()


@pytest.mark.parametrize("stages", range(1, 5))
def test_where_the_diary_can_not_be_kept_nothing_is_sent(stages):
    disk = Disk()
    session = Session(n=5, policies={0: {"diary": Diary(CohortRule(1), keep=disk)}})
    for _ in range(stages):
        session.stage()
    state, message = session.clients[0].save(), message_to(0, session.inbox)
    disk.full = True
    for _ in range(2):  # that the diary in memory has noted it is not enough
        with pytest.raises(OSError, match="no space"):
            restored(session, state).receive(message)
    disk.full = False
    session.clients[0] = restored(session, state, policy=disk.policy_of(session))
    session.until(ServerState.FINISHED)
    assert session.server.result.survivors == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("notes", range(2))
def test_an_invitation_of_which_a_note_can_not_be_kept_is_not_accepted(graph, notes):
    """There are two, of the acceptance and of the answer; the second fails where the first was kept."""
    disk = Disk()
    failing = iter([False] * notes + [True])

    def keep(data):
        if next(failing, False):
            raise OSError("no space")
        disk(data)

    session = Session(**GRAPHS[graph], policies={0: {"diary": Diary(CohortRule(1), keep=keep)}})
    with pytest.raises(OSError, match="no space"):
        session.clients[0].receive(message_to(0, session.inbox))
    assert session.clients[0].state is ClientState.INVITED
    with pytest.raises(CallOutOfOrder):
        session.clients[0].submit(session.vectors[0])
    with pytest.raises(CallOutOfOrder):
        session.clients[0].save()
    session.until(ServerState.FINISHED)  # and accepts it when there is space
    assert 0 in session.server.result.survivors


@pytest.mark.parametrize("stages", range(1, 5))
def test_a_diary_that_is_older_than_the_state_is_refused(stages):
    disk = Disk()
    session = Session(n=5, policies={0: {"diary": Diary(CohortRule(1), keep=disk)}})
    empty, older = Diary().save(), None
    for _ in range(stages):
        older = disk.data
        session.stage()
    state = session.clients[0].save()
    for data in (empty, older or empty):
        disk.data = data
        with pytest.raises(BadSavedState, match="diary"):
            restored(session, state, policy=disk.policy_of(session))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("stages", range(1, 5))
def test_a_client_that_had_a_diary_is_not_restored_without_one(graph, stages):
    session = Session(**GRAPHS[graph], policies={0: {"diary": Diary(CohortRule(1))}})
    for _ in range(stages):
        session.stage()
    for index in (0, 1):  # 0 with a diary, 1 without
        policy, state = session.clients[index]._policy, session.clients[index].save()
        restored(session, state, index, policy)
        with pytest.raises(BadSavedState, match="diary"):
            restored(session, state, index, replace(policy, diary=None if index == 0 else Diary(CohortRule(1))))


def test_a_forgotten_round_is_not_gone_on_with():
    session = Session(n=5, policies=with_diaries(5)).until(ServerState.MASKED_INPUTS)
    state, diary = session.clients[0].save(), session.clients[0]._policy.diary
    diary.forget(before=7)
    restored(session, state)
    diary.forget(before=8)
    with pytest.raises(BadSavedState, match="round 7"):
        restored(session, state)
    with pytest.raises(BadSavedState, match="round 7"):
        session.clients[0].receive(message_to(0, session.inbox))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("stages", range(1, 5))
def test_a_client_is_not_restored_with_the_diary_of_another(graph, stages):
    session = Session(**GRAPHS[graph], policies={i: {"diary": Diary(CohortRule(1))} for i in (0, 1)})
    for _ in range(stages):
        session.stage()
    own, other = session.clients[0]._policy, session.clients[1]._policy
    with pytest.raises(BadSavedState, match="the diary of client 1"):
        restored(session, session.clients[0].save(), policy=replace(own, diary=other.diary))


def test_two_clients_do_not_keep_one_diary():
    diary = Diary(CohortRule(1))
    session = Session(n=5, policies={i: {"diary": diary} for i in (0, 1)})
    session.clients[0].receive(message_to(0, session.inbox))
    with pytest.raises(BadParameter, match="a diary that client 0 has too"):
        session.clients[1].receive(message_to(1, session.inbox))


@pytest.mark.parametrize(
    "weaker",
    [
        {"diary": Diary(CohortRule(3))},
        {"round_number": 8},
        {"context": b"other"},
        {"known": {}},
        {"highest_magnitude": 1},
    ],
    ids=lambda policy: next(iter(policy)),
)
@pytest.mark.parametrize("stages", range(1, 5))
def test_what_a_client_would_not_accept_it_does_not_go_on_with(weaker, stages):
    session = Session(**RING, policies={0: {"diary": Diary(CohortRule(1))}})
    for _ in range(stages):
        session.stage()
    state, policy = session.clients[0].save(), session.clients[0]._policy
    if "diary" in weaker:  # a rule that protects nobody in a ring
        weaker = {"diary": Diary.load(policy.diary.save(), CohortRule(3))}
    with pytest.raises((PolicyRefused, ContextMismatch)):
        restored(session, state, policy=replace(policy, **weaker))
