"""What a client remembers: cohorts against differencing, restarts, and what it has signed."""

from contextlib import suppress
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd_protocols import CohortRule, Diary, LocalPolicy, MaskingClient, MaskingServer
from securekd_protocols.errors import (
    AnsweredBefore,
    BadParameter,
    BadSavedState,
    CohortRefused,
    ContextMismatch,
    PolicyRefused,
    SignedBefore,
    TooManyRestarts,
)
from securekd_protocols.messages import Kind
from securekd_protocols.states import ClientState, ServerState
from securekd_protocols.wire import Writer
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session

ALL = frozenset("abcdefgh")
cohorts = st.sets(st.sampled_from(sorted(ALL))).map(frozenset)


@given(st.lists(cohorts, max_size=6), st.integers(1, 8))
def test_any_two_cohorts_are_equal_or_far_enough_apart(offered, smallest):
    diary, taken = Diary(CohortRule(smallest)), []
    for number, cohort in enumerate(offered):
        try:
            diary.sign(number.to_bytes(32, "big"), cohort)
        except CohortRefused:
            assert any(0 < len(cohort ^ other) < smallest for other in taken)
        else:
            taken.append(cohort)
    assert all(a == b or len(a ^ b) >= smallest for a, b in combinations(taken, 2))


def test_the_difference_of_two_sums_is_what_is_defended_against():
    """Without the rule, two rounds that differ by one client give away that client's vector."""
    vectors = {name: np.random.default_rng(ord(name)).integers(-9, 10, 5) for name in ALL}
    with_h, without_h = ALL, ALL - {"h"}
    difference = sum(vectors[n] for n in with_h) - sum(vectors[n] for n in without_h)
    assert (difference == vectors["h"]).all()
    diary = Diary(CohortRule(smallest_difference=3))
    diary.sign(bytes(32), with_h)
    for refused in (without_h, without_h - {"g"}):
        with pytest.raises(CohortRefused):
            diary.sign(b"1" * 32, refused)
    diary.sign(b"2" * 32, without_h - {"f", "g"})
    diary.sign(b"3" * 32, with_h)


BATCHES = (frozenset("abc"), frozenset("de"), frozenset("fgh"))


@given(st.lists(cohorts, max_size=12))
def test_no_combination_of_batched_cohorts_singles_out_less_than_a_batch(offered):
    diary, taken = Diary(CohortRule(1, BATCHES)), []
    for number, cohort in enumerate(offered):
        try:
            diary.sign(number.to_bytes(32, "big"), cohort)
        except CohortRefused:
            assert any(batch & cohort not in (frozenset(), batch) for batch in BATCHES)
        else:
            taken.append([name in cohort for name in sorted(ALL)])
    for batch in BATCHES:  # every sum, and so every linear combination, is constant on each batch
        columns = [i for i, name in enumerate(sorted(ALL)) if name in batch]
        assert all(len({row[i] for i in columns}) == 1 for row in taken)


def test_batches_do_not_overlap_and_differences_are_positive():
    with pytest.raises(BadParameter):
        CohortRule(1, (frozenset("ab"), frozenset("bc")))
    with pytest.raises(BadParameter):
        CohortRule(0)


def test_a_client_refuses_to_sign_a_cohort_that_is_too_close():
    """Round one with everybody; in round two client 4 is silent, so that the two sums differ by its input alone."""
    diary = Diary(CohortRule(smallest_difference=3))
    session = Session(n=5, policies={0: {"diary": diary}}, seed=b"one").until(ServerState.FINISHED)
    assert session.clients[0].state is ClientState.UNMASKED
    session = Session(n=5, policies={0: {"diary": diary}}, seed=b"two").until(ServerState.MASKED_INPUTS)
    session.stage(silent={4})
    with pytest.raises(CohortRefused):
        session.answers()
    assert session.clients[0].state is ClientState.ABORTED
    session = Session(n=5, policies={0: {"diary": diary}}, seed=b"three").until(ServerState.FINISHED)
    assert session.server.result.survivors == (0, 1, 2, 3, 4)


RING = {"n": 8, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD}


def accept(session, diary):
    """A client's process gets an invitation, answers it, and dies."""
    policy = replace(session.clients[0]._policy, diary=diary)
    MaskingClient(session.identities[0], policy).receive(session.inbox[0].data)


@pytest.mark.parametrize("arguments", [{"n": 4}, RING], ids=["complete", "regular"])
@pytest.mark.parametrize("sessions", [1, 3, 16])
def test_accepted_invitations_are_counted(arguments, sessions):
    """Each may give the server another graph, of whatever session it is; those that are refused do not count."""
    diary = Diary(CohortRule(1))
    made = [Session(**arguments, seed=bytes([i])) for i in range(sessions)]
    stranger = Session(**arguments, contexts={0: b"letters"}, policies={0: {"diary": diary}}, seed=b"other")
    for number in range(16):
        accept(made[number % sessions], diary)
        with pytest.raises(ContextMismatch):
            stranger.answers()
    for session in (*made[:2], Session(**arguments, seed=b"more")):
        with pytest.raises(TooManyRestarts, match="16 invitations for round 7"):
            accept(session, diary)
    diary.begin(8, bytes(32), 1, client=0)  # the next round begins anew


@pytest.mark.parametrize("own", [1, 2, 15])
def test_how_many_invitations_are_accepted_is_the_client_s_word(own):
    """The server's R can be larger, which makes the graph safer; it buys no further session."""
    diary = Diary(CohortRule(1))
    policies = {0: {"diary": diary, "restarts": own}}
    made = [Session(**RING, policies=policies, seed=bytes([i])) for i in range(own + 1)]
    for session in made[:-1]:
        session.answers()
    with pytest.raises(TooManyRestarts):
        made[-1].answers()


@pytest.mark.parametrize(("offered", "own"), [(1, 2), (15, 16), (16, 17), (16, 65535)])
def test_a_graph_for_fewer_restarts_than_the_client_accepts_is_refused(offered, own):
    policies = {i: {"restarts": own} for i in range(8)}
    session = Session(n=8, graph=replace(SMALL_RING, restarts=offered), threshold=3, policies=policies)
    with pytest.raises(PolicyRefused, match=f"{offered} restarts, at least {own}"):
        session.answers()


@pytest.mark.parametrize("restarts", [0, -1, 65536])
def test_restarts_out_of_range_are_refused(restarts):
    with pytest.raises(BadParameter, match="restarts"):
        Session(n=3, policies={0: {"restarts": restarts}})


@pytest.mark.parametrize("colluders", [0, 1, 2, 3])
def test_a_cohort_rule_leaves_two_honest_clients_in_every_difference(colluders):
    """A difference of C + 1 clients, of whom C collude, is one honest client's input."""
    least = colluders + 2
    for rule in (CohortRule(least), CohortRule(least + 1), CohortRule(1), CohortRule(1, (frozenset("abcde"),))):
        LocalPolicy(bytes(32), {}, colluders=colluders, diary=Diary(rule))
    narrow = [CohortRule(1, (frozenset("abcdef"), frozenset("uvwxyz"[: least - 1])))]
    narrow += [CohortRule(least - 1)] if least > 2 else []
    for rule in narrow:
        with pytest.raises(BadParameter, match=f"{colluders} may collude; .* {least}"):
            LocalPolicy(bytes(32), {}, colluders=colluders, diary=Diary(rule))


@pytest.mark.parametrize("colluders", [2, 3])
def test_a_session_for_more_colluders_than_the_cohort_rule_fits_is_refused(colluders):
    policies = {0: {"diary": Diary()}}
    session = Session(n=8, colluders=1, policies=policies)
    more = replace(session.parameters, colluders=colluders, threshold=6)
    with pytest.raises(PolicyRefused, match=f"{colluders} may collude"):
        session.clients[0].receive(MaskingServer(more, session.operator).invitation())
    assert Diary().rule.smallest_difference == 3  # what fits the one colluder of a policy by default


def test_one_survivor_set_in_one_session():
    diary = Diary(CohortRule(1))
    diary.sign(bytes(32), ALL)
    diary.sign(bytes(32), ALL)
    with pytest.raises(SignedBefore):
        diary.sign(bytes(32), ALL - {"a"})


@given(st.dictionaries(st.binary(min_size=32, max_size=32), cohorts, max_size=5), st.integers(0, 2**64 - 1))
def test_a_diary_is_saved_and_loaded(signed, number):
    diary = Diary(CohortRule(1))
    for session_id, cohort in signed.items():
        diary.begin(number, session_id, 10, client=0)
        diary.sign(session_id, cohort)
    loaded = Diary.load(diary.save(), CohortRule(1))
    assert loaded == diary
    for session_id, cohort in signed.items():
        with pytest.raises(SignedBefore):
            loaded.sign(session_id, cohort ^ ALL)
    if signed:
        with pytest.raises(TooManyRestarts):
            loaded.begin(number, b"new".ljust(32), len(signed), client=0)


transcripts = st.binary(min_size=32, max_size=32)


@given(st.lists(st.tuples(st.integers(0, 3), transcripts, st.sampled_from(Kind), transcripts), max_size=8))
def test_stories_are_saved_and_loaded(told):
    diary = Diary()
    for number, session_id, kind, transcript in told:
        diary.begin(number, session_id, 100, client=0)
        with suppress(AnsweredBefore):
            diary.answer(number, session_id, kind, transcript)
    loaded = Diary.load(diary.save(), CohortRule())
    assert loaded == diary
    for number, session_id, kind, transcript in told:
        for one in (diary, loaded):
            one.check_restored(number, session_id, 0, diary._rounds[number][session_id].story[kind])
            with pytest.raises(AnsweredBefore):
                one.answer(number, session_id, kind, bytes(reversed(transcript)) + b"!")


def test_a_diary_grows_by_what_is_accepted():
    diary = Diary()
    for number in range(16):
        diary.begin(7, bytes([number]) * 32, 16, client=0)
        for kind in Kind:
            diary.answer(7, bytes([number]) * 32, kind, bytes(32))
    empty = len(Diary().save())
    assert len(diary.save()) - empty < 16 * 450  # six of the twelve kinds are a client's: 250 bytes
    diary.forget(before=8)
    assert len(diary.save()) == empty


@pytest.mark.parametrize("saved", [False, True])
def test_no_invitation_is_accepted_for_a_round_that_is_forgotten(saved):
    diary = Diary()
    diary.begin(7, bytes(32), 16, client=0)
    diary.forget(before=8)
    if saved:
        diary = Diary.load(diary.save(), CohortRule())
    for number in (0, 7):
        with pytest.raises(BadParameter, match=f"round {number}, which this diary has forgotten"):
            diary.begin(number, bytes(32), 16, client=0)
    diary.forget(before=3)  # remembers no more than before
    with pytest.raises(BadParameter):
        diary.begin(7, bytes(32), 16, client=0)
    diary.begin(8, bytes(32), 16, client=0)


def old_diary(sessions=3):
    """As release 0.1 wrote it: signed sets, then sessions by round."""
    writer = Writer().fixed(b"SKDY\x01").integer(1, 4).fixed(b"s" * 32).blobs([b"a", b"b", b"c"])
    writer.integer(1, 4).integer(7, 8).integer(sessions, 2)
    for number in range(sessions):
        writer.fixed(bytes([number]) * 32)
    return writer.finish()


def test_a_diary_of_release_0_1_is_read():
    diary = Diary.load(old_diary(), CohortRule(3))
    with pytest.raises(SignedBefore):
        diary.sign(b"s" * 32, frozenset("abcd"))
    with pytest.raises(CohortRefused):
        diary.sign(b"t" * 32, frozenset("abcd"))
    for most in (1, 16, 2**16 - 1):  # how often those were accepted was not noted
        for session_id in (bytes(32), b"new".ljust(32)):
            with pytest.raises(TooManyRestarts):
                diary.begin(7, session_id, most, client=0)
    assert Diary.load(diary.save(), CohortRule(3)) == diary
    diary.begin(8, b"new".ljust(32), 1, client=0)  # a round that it did not name
    with pytest.raises(BadSavedState, match="sent what its diary does not know of"):
        diary.check_restored(7, bytes(32), 0, bytes(32))
    for junk in (old_diary() + b"!", old_diary()[:-1], old_diary().replace(b"SKDY\x01", b"SKDY\x03")):
        with pytest.raises(BadSavedState):
            Diary.load(junk, CohortRule())


@given(st.binary(max_size=200))
def test_what_is_no_diary_is_refused(data):
    whole = Diary().save()
    for junk in (data, whole + data + b"!", whole[:-1], whole[:5] + b"\xff\xff\xff\xff" + data):
        with pytest.raises(BadSavedState):
            Diary.load(junk, CohortRule())


def test_a_diary_has_one_spelling():
    written = []
    for name in (b"a", b"b"):
        diary = Diary(CohortRule(1))
        diary.sign(name.ljust(32), ALL)
        written.append(diary.save())
    head, tail = written[0][:5], written[0][-12:]
    first, second = (whole[9:-12] for whole in written)
    assert len(Diary.load(head + bytes([2, 0, 0, 0]) + first + second + tail, CohortRule(1))._signed) == 2
    for entries in (second + first, first + first):
        with pytest.raises(BadSavedState, match="out of order or repeated"):
            Diary.load(head + bytes([2, 0, 0, 0]) + entries + tail, CohortRule(1))
