"""Guesses by rank, refusals without coins, exposure by hand, extraction by count."""

import math

import numpy as np
import pytest

from securekd_attacks import (
    BadCounts,
    BadInclusion,
    MembershipScores,
    NotFiniteScores,
    Provenance,
    ShapeMismatch,
    TooFewRecords,
    bounds,
)
from securekd_attacks.bounds.canaries import Guesses, exposure, extraction_rate, guess, one_run_bound, one_run_fdp_bound

COINS = Provenance("bernoulli", probability=0.5, seed=1)


def scored(members, nonmembers, origin=COINS):
    return MembershipScores("mine", np.array(members, float), np.array(nonmembers, float), origin)


def test_guesses_by_hand():
    scores = scored([5, 4, 1], [3, 2, 0])
    assert guess(scores, 2).correct == 2
    assert guess(scores, 4).correct == 3  # 5 and 4 in, 0 and 1 out: 1 was in
    assert guess(scores, 6).correct == 4
    assert guess(scores, 1) == Guesses(6, 1, 1)


@pytest.mark.parametrize("guesses", [1, 2, 7, 10])
def test_scores_that_tell_nothing_apart_show_nothing(guesses):
    """Ties go against the adversary, whatever the order of the input."""
    assert guess(scored([1] * 5, [1] * 5), guesses).correct == 0
    assert one_run_bound(scored([1] * 500, [1] * 500), 1000, delta=0.0).epsilon_lower == 0.0


def test_bounds_are_those_of_the_counts():
    rng = np.random.default_rng(2)
    scores = scored(rng.normal(2, 1, 480), rng.normal(0, 1, 520))
    made = guess(scores, 100)
    counts = (made.canaries, made.guesses, made.correct)
    assert one_run_bound(scores, 100, 1e-5) == bounds.one_run(*counts, 1e-5)
    assert one_run_fdp_bound(scores, 100, 1e-5) == bounds.one_run_fdp(*counts, 1e-5)


@pytest.mark.parametrize("origin", [None, Provenance("split"), Provenance("bernoulli", probability=0.3)])
def test_without_fair_coins_a_one_run_bound_is_refused(origin):
    scores = scored([1, 2], [0, 1], origin)
    for bound in (one_run_bound, one_run_fdp_bound):
        with pytest.raises(BadInclusion, match="fair coin"):
            bound(scores, 2, delta=1e-5)


def test_more_guesses_than_canaries():
    with pytest.raises(BadCounts):
        guess(scored([1, 2], [0, 1]), 5)


@pytest.mark.parametrize("canaries", [200, 500, 4000])
def test_no_leak_no_alarm(canaries):
    """P[ε_lower > 0] over 400 seeds of noise, from scores: at most 5% and three standard errors, root 3."""
    alarms = 0
    for rng in np.random.default_rng(3).spawn(400):
        inside = rng.random(canaries) < 0.5
        noise = rng.normal(size=canaries)
        made = guess(scored(noise[inside], noise[~inside]), canaries // 4)
        alarms += bounds.one_run_p_value(made.canaries, made.guesses, made.correct, 0.0, 0.0) <= 0.05
    assert alarms / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


class TestExposure:
    def test_by_hand(self):
        found = exposure([0.5, 2.0, 3.5, 9.0], [1, 2, 3, 4, 5, 6, 7])
        np.testing.assert_array_equal(found.ranks, [1, 3, 4, 8])
        np.testing.assert_allclose(found.values, [3, 3 - math.log2(3), 1, 0])
        assert (found.candidates, found.ceiling) == (8, 3.0)

    def test_planted_reaches_a_finite_ceiling(self):
        found = exposure([0.0], np.full(4095, 744.44))
        assert found.values[0] == found.ceiling == 12.0

    def test_never_planted_is_chance(self):
        """4,000 canaries: the mean by chance is 1/ln 2 = 1.443 bits; within four standard errors, root 4."""
        rng = np.random.default_rng(4)
        values = np.concatenate([exposure(rng.normal(size=1), rng.normal(size=1023)).values for _ in range(4000)])
        assert values.mean() == pytest.approx(1 / math.log(2), abs=4 * 1.443 / math.sqrt(4000))

    def test_refuses(self):
        with pytest.raises(NotFiniteScores):
            exposure([np.nan], [1.0])
        with pytest.raises(TooFewRecords):
            exposure([1.0], [])


class TestExtraction:
    def test_counts_whole_suffixes(self):
        found = extraction_rate([[1, 2], [1, 3], [4, 5]], [[1, 2], [1, 2], [4, 5]])
        assert (found.extracted, found.sequences) == (2, 3)
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(2 / 3)

    @pytest.mark.parametrize(
        ("generated", "suffixes", "error"),
        [
            ([[1, 2]], [[1]], ShapeMismatch),
            ([1, 2], [1, 2], ShapeMismatch),
            (np.empty((0, 3), int), np.empty((0, 3), int), TooFewRecords),
            ([[0.5]], [[0.5]], NotFiniteScores),
        ],
    )
    def test_refuses(self, generated, suffixes, error):
        with pytest.raises(error):
            extraction_rate(generated, suffixes)
