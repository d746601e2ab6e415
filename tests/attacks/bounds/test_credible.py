"""The credible bound against direct sampling of its posterior, and how often it exceeds a known ε."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from securekd_attacks import BadCounts, BadSetting, bounds
from securekd_attacks.bounds.credible import _compliance, _quantiles

cells = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))


def sampled(tp, tn, fp, fn, delta, confidence, draws=400_000):
    """The quantile of ε over draws of both rates: the definition, with no integral."""
    rng = np.random.default_rng(41)
    fpr, fnr = rng.beta(fp + 0.5, tn + 0.5, draws), rng.beta(fn + 0.5, tp + 0.5, draws)
    with np.errstate(divide="ignore"):  # a rate of exactly zero
        downward = np.log(np.maximum(1 - delta - fpr, 1e-300)) - np.log(fnr)
        upward = np.log(np.maximum(1 - delta - fnr, 1e-300)) - np.log(fpr)
    return max(0.0, *(float(np.quantile(each, (1 - confidence) / 2)) for each in (downward, upward)))


def chance_of_exceeding(epsilon, tpr, fpr, trials, seeds, root, delta=0.0):
    rng = np.random.default_rng(root)
    hits, alarms = rng.binomial(trials, tpr, seeds), rng.binomial(trials, fpr, seeds)
    held = [
        _compliance(_quantiles(alarm, trials - alarm), hit, trials - hit, epsilon, delta)
        for hit, alarm in zip(hits.tolist(), alarms.tolist(), strict=True)
    ]
    return float(np.mean(np.array(held) <= 0.025))


def allowed(seeds, rate=0.05):
    return rate + 3 * math.sqrt(rate * (1 - rate) / seeds)


@pytest.mark.parametrize(
    "counts", [(172, 172, 78, 78), (90, 80, 20, 10), (250, 250, 0, 0), (5, 3000, 0, 95), (60, 40, 60, 40)]
)
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
def test_is_the_quantile_of_the_posterior(counts, delta):
    assert bounds.bayesian(*counts, delta=delta).epsilon_lower == pytest.approx(
        sampled(*counts, delta, 0.95), abs=0.02, rel=0.02
    )


def test_is_one_sided():
    """Counting the reversed rule would refute ε = 0 at δ = 0 for any counts at all."""
    assert bounds.bayesian(125, 125, 125, 125, delta=0.0).epsilon_lower == 0.0
    assert bounds.bayesian(10, 10, 240, 240, delta=0.0).epsilon_lower == 0.0


def test_says_more_than_exact_limits_do():
    bound = bounds.bayesian(172, 172, 78, 78, delta=1e-5)
    assert bound.epsilon_lower > bounds.clopper_pearson(172, 250, 78, 250, delta=1e-5).epsilon_lower
    assert "degree of belief" in bound.assumptions[0]


@pytest.mark.parametrize(("epsilon", "trials"), [(0.0, 200), (1.0, 500)])
def test_rarely_exceeds(epsilon, trials):
    """Randomised response (ε = 0 is no leak), 300 seeds: at most 5% and three standard errors."""
    rate = chance_of_exceeding(epsilon, special.expit(epsilon), special.expit(-epsilon), trials, 300, root=42)
    assert rate <= allowed(300)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [200, 500, 4000])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_rarely_exceeds_over_many_seeds(epsilon, trials):
    """The same with 1,000 seeds."""
    rate = chance_of_exceeding(epsilon, special.expit(epsilon), special.expit(-epsilon), trials, 1000, root=43)
    assert rate <= allowed(1000)


@pytest.mark.slow
def test_rarely_exceeds_for_a_gaussian():
    """μ = 1 at δ = 1e-5 is ε = 4.377; the threshold is fixed at an FPR of 5%."""
    tpr = special.ndtr(1.0 + special.ndtri(0.05))
    assert chance_of_exceeding(4.377, tpr, 0.05, 500, 1000, root=44, delta=1e-5) <= allowed(1000)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
def test_power(epsilon):
    right = round(10_000 * special.expit(epsilon))
    assert bounds.bayesian(right, right, 10_000 - right, 10_000 - right, 0.0).epsilon_lower > 0.8 * epsilon


@settings(max_examples=40)
@given(cells, st.sampled_from([0.0, 1e-5, 0.3]), st.sampled_from([0.5, 0.95, 0.999]))
def test_finite_and_not_negative(counts, delta, confidence):
    tp, tn, fp, fn = counts
    if tp + fn and fp + tn:
        assert 0.0 <= bounds.bayesian(tp, tn, fp, fn, delta, confidence).epsilon_lower < math.inf


@pytest.mark.parametrize("bad", [(-1, 5, 0, 5), (0, 5, 0, 0), (5, 0, 0, 5), (1.5, 5, 0, 5)])
def test_impossible_counts(bad):
    with pytest.raises(BadCounts):
        bounds.bayesian(*bad, delta=0.0)


def test_settings_out_of_range():
    for bad in ({"delta": -0.1}, {"delta": 0.0, "confidence": 1.0}):
        with pytest.raises(BadSetting):
            bounds.bayesian(5, 5, 5, 5, **bad)
