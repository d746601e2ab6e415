"""What the sides may look like, and that records on both sides are found."""

import numpy as np
import pytest

from securekd_attacks import (
    Access,
    MissingAccess,
    OverlappingRecords,
    ShapeMismatch,
    Signals,
    TooFewRecords,
    check_disjoint,
)

LOG_PROBS = np.log(np.full((3, 2), 0.5))


def test_available_names_what_was_given():
    assert Signals(log_probs=LOG_PROBS).available == {Access.LOG_PROBS}
    both = Signals(log_probs=LOG_PROBS, labels=np.array([0, 1, 1]), record_ids=["a", "b", "c"])
    assert both.available == {Access.LOG_PROBS, Access.LABELS}
    assert both.records == Signals(labels=np.array([0, 1, 1])).records == 3


def test_asking_for_more_is_an_error_that_names_attack_and_signal():
    with pytest.raises(MissingAccess, match="'mine' needs labels"):
        Signals(log_probs=LOG_PROBS).require_labels("mine")
    with pytest.raises(MissingAccess, match="'mine' needs log_probs"):
        Signals(labels=np.array([0])).require_log_probs("mine")


def test_refuses_nothing_and_parts_that_disagree():
    with pytest.raises(TooFewRecords):
        Signals()
    with pytest.raises(TooFewRecords):
        Signals(record_ids=["a"])
    with pytest.raises(ShapeMismatch, match=r"\[2, 3\]"):
        Signals(log_probs=LOG_PROBS, labels=np.array([0, 1]))


def test_refuses_a_record_twice():
    with pytest.raises(OverlappingRecords, match="b"):
        Signals(log_probs=LOG_PROBS, record_ids=["b", "a", "b"])


def test_overlap_is_found_and_named():
    members = Signals(log_probs=LOG_PROBS, record_ids=[4, 5, 6])
    with pytest.raises(OverlappingRecords, match="2 records") as caught:
        check_disjoint(members, Signals(log_probs=LOG_PROBS, record_ids=np.array([6, 7, 5])))
    assert caught.value.value == 5
    check_disjoint(members, Signals(log_probs=LOG_PROBS, record_ids=[7, 8, 9]))


def test_ids_on_one_side_promise_a_check_that_cannot_be_made():
    with_ids, without = Signals(log_probs=LOG_PROBS, record_ids="abc"), Signals(log_probs=LOG_PROBS)
    check_disjoint(without, without)
    for pair in ((with_ids, without), (without, with_ids)):
        with pytest.raises(ShapeMismatch, match="only one side"):
            check_disjoint(*pair)
