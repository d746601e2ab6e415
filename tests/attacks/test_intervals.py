"""Clopper and Pearson's limits against scipy's own, at the corners, and in their coverage computed exactly."""

import numpy as np
import pytest
from scipy import stats

from securekd_attacks import BadCounts, BadSetting, binomial_interval
from securekd_attacks.intervals import binomial_lower, binomial_upper


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 30), (1, 30), (17, 30), (30, 30), (3, 100_000)])
def test_equal_to_scipy(successes, trials, confidence):
    ours = binomial_interval(successes, trials, confidence)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_rule_of_three():
    assert float(binomial_upper(0, 3000, 0.05)) == pytest.approx(3 / 3000, rel=2e-3)
    assert binomial_interval(0, 3000).low == 0.0
    assert binomial_interval(3000, 3000).high == 1.0


def test_upper_limit_stays_positive_for_huge_trials():
    assert 0.0 < float(binomial_upper(0, 10**15, 0.025)) < 1e-14


@pytest.mark.parametrize("truth", [0.003, 0.05, 0.31, 0.5, 0.97])
@pytest.mark.parametrize("trials", [7, 60, 400])
def test_each_limit_is_wrong_at_most_as_often_as_it_says(truth, trials):
    counts = np.arange(trials + 1)
    weight = stats.binom.pmf(counts, trials, truth)
    assert weight[binomial_lower(counts, trials, 0.025) > truth].sum() <= 0.025 + 1e-12
    assert weight[binomial_upper(counts, trials, 0.025) < truth].sum() <= 0.025 + 1e-12


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0), (1.0, 5), ("1", 5)])
def test_impossible_counts(successes, trials):
    with pytest.raises(BadCounts):
        binomial_interval(successes, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, float("nan"), 95.0])
def test_confidence_out_of_range(confidence):
    with pytest.raises(BadSetting, match="confidence"):
        binomial_interval(1, 5, confidence)
