"""How often intervals miss and bounds overshoot, by simulation with fixed seeds.

A rate of 5% measured over S seeds may exceed it by three standard errors, 3 √(0.05 · 0.95 / S), before it fails.
"""

import math

import numpy as np
import pytest
from scipy import special

from securekd_attacks import auc, binomial_interval, roc, split_bound, tpr_at_fpr
from securekd_attacks.bounds import refuted_epsilon

SEEDS = 2000


def allowed(seeds, rate=0.05):
    return rate + 3 * math.sqrt(rate * (1 - rate) / seeds)


def coverage(draw, truth, seeds, root):
    covered = 0
    for rng in np.random.default_rng(root).spawn(seeds):
        result = auc(*draw(rng))
        covered += result.low <= truth <= result.high
    return covered / seeds


def alarms(draw, epsilon, seeds, root, delta=0.0):
    above = 0
    for rng in np.random.default_rng(root).spawn(seeds):
        above += split_bound(*draw(rng), delta=delta, rng=rng).epsilon_lower > epsilon
    return above / seeds


def no_leak(members, nonmembers):
    return lambda rng: (rng.normal(size=members), rng.normal(size=nonmembers))


def no_leak_in_levels(members, nonmembers, levels):
    return lambda rng: (rng.integers(0, levels, members), rng.integers(0, levels, nonmembers))


def randomised_response(epsilon, trials):
    def draw(rng):
        return rng.random(trials) < special.expit(epsilon), rng.random(trials) < special.expit(-epsilon)

    return draw


def gaussian(mu, members, nonmembers):
    return lambda rng: (rng.normal(mu, 1.0, members), rng.normal(size=nonmembers))


def leak_of_a_few(share, members, nonmembers):
    """Most members look like non-members, a few are given away: what low-FPR attacks look for."""
    return lambda rng: (rng.normal(size=members) + 100 * (rng.random(members) < share), rng.normal(size=nonmembers))


@pytest.mark.parametrize(("members", "nonmembers"), [(200, 200), (300, 100), (500, 500)])
def test_auc_covers_chance_without_leak(members, nonmembers):
    assert 0.93 <= coverage(no_leak(members, nonmembers), 0.5, SEEDS, root=1) <= 0.97


@pytest.mark.parametrize("levels", [2, 5])
def test_auc_covers_chance_without_leak_in_spite_of_ties(levels):
    assert 0.93 <= coverage(no_leak_in_levels(200, 200, levels), 0.5, SEEDS, root=2) <= 0.97


@pytest.mark.parametrize("records", [200, 500])
def test_split_bound_is_silent_without_leak(records):
    assert alarms(no_leak(records, records), 0.0, 1000, root=3) <= allowed(1000)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
def test_split_bound_keeps_below_randomised_response(epsilon):
    assert alarms(randomised_response(epsilon, 500), epsilon, 1000, root=4) <= allowed(1000)


def test_split_bound_finds_a_leak():
    """Power, or silence would pass: 1,000 a side under randomised response of ε = 2 nearly always show more than 1."""
    assert alarms(randomised_response(2.0, 1000), 1.0, 200, root=5) > 0.95


@pytest.mark.slow
def test_choosing_and_bounding_on_the_same_records_would_not_do():
    """The reason for the split: without a leak, the best of all thresholds is above zero in one of ten seeds."""
    fooled = 0
    for rng in np.random.default_rng(6).spawn(800):
        curve = roc(rng.normal(size=4000), rng.normal(size=4000))
        fooled += refuted_epsilon(curve.true_positives, 4000, curve.false_positives, 4000, 0.0, 0.95).max() > 0
    assert fooled / 800 > allowed(800)


@pytest.mark.parametrize(("members", "nonmembers", "fpr"), [(100, 100, 0.1), (300, 1000, 0.01)])
def test_tpr_and_fpr_intervals_cover_the_rates_of_the_rule_found(members, nonmembers, fpr):
    misses = np.zeros(2)
    for rng in np.random.default_rng(7).spawn(SEEDS):
        result = tpr_at_fpr(*gaussian(1.0, members, nonmembers)(rng), fpr)
        # The least threshold that was seen lies a hair above the last refused non-member; rates are taken there.
        true_tpr, true_fpr = special.ndtr(1.0 - result.threshold), special.ndtr(-result.threshold)
        misses += [not result.low <= true_tpr <= result.high, not result.fpr_low <= true_fpr <= result.fpr_high]
    assert np.all(misses / SEEDS <= allowed(SEEDS))


@pytest.mark.slow
@pytest.mark.parametrize("records", [100, 200, 500, 1000])
def test_auc_coverage_without_leak_over_many_seeds(records):
    assert 0.94 <= coverage(no_leak(records, records), 0.5, 20_000, root=10) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize(("members", "nonmembers"), [(2, 2), (5, 5), (10, 200), (50, 50), (300, 100)])
@pytest.mark.parametrize("mu", [0.0, 1.0, 2.0, 3.0, 4.5])
def test_auc_covers_the_truth_from_few_records_to_many_and_up_to_one(mu, members, nonmembers):
    truth = special.ndtr(mu / math.sqrt(2))
    seeds = 4000
    nominal = 0.10 if members == 2 else 0.06  # four records cannot say more, and the docstring does not promise it
    assert 1 - coverage(gaussian(mu, members, nonmembers), truth, seeds, root=11) <= allowed(seeds, nominal)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_auc_covers_the_truth_when_few_members_leak(share):
    seeds = 4000
    missed = 1 - coverage(leak_of_a_few(share, 200, 300), 0.5 + share / 2, seeds, root=12)
    assert missed <= allowed(seeds, 0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("records", "seeds"), [(200, 10_000), (500, 10_000), (4000, 2000)])
def test_split_bound_is_silent_without_leak_over_many_seeds(records, seeds):
    assert alarms(no_leak(records, records), 0.0, seeds, root=13) <= allowed(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("records", [200, 500, 4000])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
def test_split_bound_keeps_below_randomised_response_over_many_seeds(epsilon, records):
    assert alarms(randomised_response(epsilon, records), epsilon, 4000, root=14) <= allowed(4000)


@pytest.mark.slow
def test_split_bound_keeps_below_a_gaussian_of_known_epsilon():
    """μ = 1 at δ = 1e-5 is ε = 4.377."""
    assert alarms(gaussian(1.0, 1000, 1000), 4.377, 2000, root=15, delta=1e-5) <= allowed(2000)


@pytest.mark.slow
def test_exact_interval_is_exact_for_small_rates():
    rng = np.random.default_rng(16)
    hits = rng.binomial(3000, 0.001, size=20_000)
    missed = np.array([not (lambda i: i.low <= 0.001 <= i.high)(binomial_interval(int(k), 3000)) for k in hits])
    assert missed.mean() <= allowed(20_000)
