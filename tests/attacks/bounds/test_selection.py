"""Choosing the best of many attacks raises no false alarm, and does not hide a leak."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from securekd_attacks import BadSetting, MembershipScores, ShapeMismatch, TooFewRecords, clopper_pearson, roc
from securekd_attacks.bounds import refuted_epsilon
from securekd_attacks.bounds.selection import _p_value, best_of, holm

METHODS = ["split", "holm"]


def guessing(rng, attacks, records, levels=None):
    draw = (lambda: rng.normal(size=records)) if levels is None else (lambda: rng.integers(0, levels, records))
    return [MembershipScores(f"attack {i}", draw().astype(float), draw().astype(float)) for i in range(attacks)]


def responding(rng, epsilon, records, name):
    sides = (rng.random(records) < special.expit(sign * epsilon) for sign in (1, -1))
    return MembershipScores(name, *(side.astype(float) for side in sides))


def allowed(seeds, rate=0.05):
    return rate + 3 * math.sqrt(rate * (1 - rate) / seeds)


def alarms(method, attacks, records, seeds, root, levels=None):
    above = 0
    for rng in np.random.default_rng(root).spawn(seeds):
        above += best_of(guessing(rng, attacks, records, levels), 0.0, method=method, rng=rng).epsilon_lower > 0
    return above / seeds


@pytest.mark.parametrize("method", METHODS)
def test_best_of_twenty_is_silent_without_leak(method):
    """20 attacks, 200 a side in four levels, 100 seeds, root 81: at most 5% and three standard errors."""
    assert alarms(method, 20, 200, 100, 81, levels=4) <= allowed(100)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("records", "seeds", "levels"), [(200, 100, None), (500, 400, 8), (4000, 400, 8)])
def test_best_of_twenty_is_silent_without_leak_over_many_seeds(method, records, seeds, levels):
    assert alarms(method, 20, records, seeds, 82, levels) <= allowed(seeds)


def test_without_a_correction_it_would_not_be():
    """The best threshold of the best of 20 attacks, on the records that are counted: 60 seeds, root 83."""
    above = 0
    for rng in np.random.default_rng(83).spawn(60):
        best = -math.inf
        for scores in guessing(rng, 20, 200):
            curve = roc(scores.members, scores.nonmembers)
            refuted = refuted_epsilon(curve.true_positives, 200, curve.false_positives, 200, 0.0, 0.95)
            best = max(best, float(refuted.max()))
        above += best > 0
    assert above / 60 > 2 * allowed(60)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_keeps_below_a_known_epsilon(method, epsilon):
    """Five attacks that each reach randomised response, 100 seeds, root 84."""
    above = 0
    for rng in np.random.default_rng(84).spawn(100):
        scores = [responding(rng, epsilon, 300, f"{i}") for i in range(5)]
        above += best_of(scores, 0.0, method=method, rng=rng).epsilon_lower > epsilon
    assert above / 100 <= allowed(100)


@pytest.mark.parametrize("method", METHODS)
def test_finds_the_one_that_leaks(method):
    rng = np.random.default_rng(85)
    scores = [*guessing(rng, 9, 1000), responding(rng, 2.0, 1000, "leak")]
    found = best_of(scores, 0.0, method=method, rng=rng)
    assert found.attack == "leak"
    assert 1.0 < found.epsilon_lower < 2.0
    assert "best of 10" in found.assumptions[0]
    by_name = {each.attack: each for each in found.candidates}
    assert by_name["leak"].p_value < 1e-6
    assert len(by_name) == 10


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.5]), [0.04, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    for bad in ([], [1.1], [math.nan], [[0.1]]):
        with pytest.raises(BadSetting):
            holm(bad)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_nothing_and_bonferroni(p_values):
    adjusted, given_ = holm(p_values), np.array(p_values)
    assert np.all(adjusted >= given_)
    assert np.all(adjusted <= np.minimum(1.0, len(p_values) * given_) + 1e-12) or len(p_values) > 1
    assert adjusted.min() == pytest.approx(min(1.0, len(p_values) * given_.min()))


@pytest.mark.parametrize("counts", [(70, 100, 50, 100), (60, 100, 35, 100), (52, 100, 50, 100)])
def test_p_value_is_the_error_at_which_the_bound_is_zero(counts):
    p = _p_value(counts, 0.0)
    if 1e-12 < p < 0.99:
        assert clopper_pearson(*counts, 0.0, confidence=1 - 0.98 * p).epsilon_lower == 0.0
        assert clopper_pearson(*counts, 0.0, confidence=1 - 1.02 * p).epsilon_lower > 0.0


def test_refuses():
    rng = np.random.default_rng(86)
    same = guessing(rng, 2, 50)
    for bad in ([], [same[0], same[0]]):
        with pytest.raises(BadSetting, match="names"):
            best_of(bad, 0.0, rng=rng)
    with pytest.raises(BadSetting, match="method"):
        best_of(same, 0.0, method="bonferroni", rng=rng)
    with pytest.raises(ShapeMismatch):
        best_of([same[0], MembershipScores("x", np.zeros(50), np.zeros(49))], 0.0, rng=rng)
    with pytest.raises(TooFewRecords):
        best_of(guessing(rng, 2, 3), 0.0, rng=rng)
