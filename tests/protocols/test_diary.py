"""What a client remembers: cohorts against differencing, restarts, and what it has signed."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd_protocols import CohortRule, Diary
from securekd_protocols.errors import BadParameter, BadSavedState, CohortRefused, SignedBefore, TooManyRestarts
from securekd_protocols.states import ClientState, ServerState
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
    diary = Diary(CohortRule(smallest_difference=2))
    diary.sign(bytes(32), with_h)
    with pytest.raises(CohortRefused):
        diary.sign(b"1" * 32, without_h)
    diary.sign(b"2" * 32, without_h - {"g"})
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
    diary = Diary(CohortRule(smallest_difference=2))
    session = Session(n=5, policies={0: {"diary": diary}}, seed=b"one").until(ServerState.FINISHED)
    assert session.clients[0].state is ClientState.UNMASKED
    session = Session(n=5, policies={0: {"diary": diary}}, seed=b"two").until(ServerState.MASKED_INPUTS)
    session.stage(silent={4})
    with pytest.raises(CohortRefused):
        session.answers()
    assert session.clients[0].state is ClientState.ABORTED
    session = Session(n=5, policies={0: {"diary": diary}}, seed=b"three").until(ServerState.FINISHED)
    assert session.server.result.survivors == (0, 1, 2, 3, 4)


def test_restarts_are_counted():
    """A graph that the server likes better costs it a session, and there are as many as the graph's rule allows for."""
    diary = Diary()
    for number in range(SMALL_RING.restarts):
        session = Session(
            n=8,
            graph=SMALL_RING,
            threshold=SMALL_RING_THRESHOLD,
            policies={0: {"diary": diary}},
            seed=bytes([number]),
        )
        session.stage()
    again = Session(n=8, graph=SMALL_RING, threshold=SMALL_RING_THRESHOLD, policies={0: {"diary": diary}}, seed=b"more")
    with pytest.raises(TooManyRestarts):
        again.answers()
    diary.begin(8, bytes(32), 1)  # the next round begins anew


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
        diary.begin(number, session_id, 10)
        diary.sign(session_id, cohort)
    loaded = Diary.load(diary.save(), CohortRule(1))
    assert loaded == diary
    for session_id, cohort in signed.items():
        with pytest.raises(SignedBefore):
            loaded.sign(session_id, cohort ^ ALL)
    if signed:
        with pytest.raises(TooManyRestarts):
            loaded.begin(number, b"new".ljust(32), len(signed))


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
    head, tail = written[0][:5], written[0][-4:]
    first, second = (whole[9:-4] for whole in written)
    assert len(Diary.load(head + bytes([2, 0, 0, 0]) + first + second + tail, CohortRule(1))._signed) == 2
    for entries in (second + first, first + first):
        with pytest.raises(BadSavedState, match="out of order or repeated"):
            Diary.load(head + bytes([2, 0, 0, 0]) + entries + tail, CohortRule(1))
