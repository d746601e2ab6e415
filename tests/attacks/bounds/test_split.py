"""The split bound: repeatable, indifferent to order, and honest because the halves are apart."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_attacks import BadSetting, NotFiniteScores, TooFewRecords, clopper_pearson, split_bound
from securekd_attacks.bounds import refuted_epsilon
from securekd_attacks.bounds.split import best_threshold

scores = st.lists(st.integers(-5, 5), min_size=4, max_size=40)


def bound(members, nonmembers, seed=0, **kwargs):
    return split_bound(members, nonmembers, **{"delta": 1e-5, "rng": np.random.default_rng(seed), **kwargs})


def test_same_generator_same_result_and_another_splits_anew():
    rng = np.random.default_rng(1)
    members, nonmembers = rng.normal(1.5, 1.0, 300), rng.normal(size=300)
    assert bound(members, nonmembers) == bound(members, nonmembers)
    assert len({bound(members, nonmembers, seed).epsilon_lower for seed in range(5)}) > 1


@settings(deadline=None)
@given(scores, scores, st.randoms(use_true_random=False))
def test_order_of_the_input_changes_nothing(members, nonmembers, random):
    shuffled, other = list(members), list(nonmembers)
    random.shuffle(shuffled)
    random.shuffle(other)
    assert bound(members, nonmembers) == bound(shuffled, other)


@settings(deadline=None)
@given(scores, scores)
def test_counts_add_up_and_the_bound_is_that_of_the_held_out_half(members, nonmembers):
    result = bound(members, nonmembers)
    held = result.held_out
    assert result.choosing_members + held.members == len(members)
    assert result.choosing_nonmembers + held.nonmembers == len(nonmembers)
    assert 0 <= held.members - result.choosing_members <= 1
    again = clopper_pearson(held.true_positives, held.members, held.false_positives, held.nonmembers, 1e-5)
    assert result.epsilon_lower == again.epsilon_lower
    assert np.isfinite(result.epsilon_lower)


def test_threshold_is_the_best_of_all_on_its_half():
    rng = np.random.default_rng(2)
    members, nonmembers = rng.integers(0, 12, 60) + 4.0, rng.integers(0, 12, 50) + 0.0

    def value(threshold):
        hits, alarms = np.sum(members >= threshold), np.sum(nonmembers >= threshold)
        return float(refuted_epsilon(hits, 60, alarms, 50, 1e-5, 0.95))

    chosen = best_threshold(np.sort(members), np.sort(nonmembers), 1e-5, 0.95)
    assert value(chosen) == max(value(threshold) for threshold in range(20))


def test_perfect_separation_and_all_tied():
    perfect = bound(np.ones(500), np.zeros(500))
    assert perfect.threshold == 1.0
    assert 3.0 < perfect.epsilon_lower < np.inf
    assert bound(np.zeros(500), np.zeros(500)).epsilon_lower == 0.0


def test_says_how_the_threshold_was_chosen():
    result = bound(np.ones(11), np.zeros(9))
    assert "5 members and 4 non-members" in result.assumptions[1]
    assert set(result.held_out.assumptions) < set(result.assumptions)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.epsilon_lower = 9.0


def test_refusals():
    good = np.arange(10.0)
    with pytest.raises(TooFewRecords, match="at least 4"):
        bound(good[:3], good)
    with pytest.raises(TooFewRecords, match="nonmembers"):
        bound(good, good[:3])
    with pytest.raises(NotFiniteScores):
        bound(good, [*good, np.nan])
    with pytest.raises(BadSetting, match="delta"):
        bound(good, good, delta=1.0)
    with pytest.raises(BadSetting, match="confidence"):
        bound(good, good, confidence=95)
