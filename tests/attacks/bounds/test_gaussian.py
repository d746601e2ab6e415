"""The Gaussian trade-off against its published values, and the bound that assumes it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from securekd_attacks import BadCounts, BadSetting, binomial_interval, bounds
from securekd_attacks.intervals import binomial_upper

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def chance_of_exceeding(mu, tpr, fpr, trials):
    """The exact chance that μ_lower lies above μ, over all pairs of counts, by the formula written out again."""
    k = np.arange(trials + 1)
    tail = 0.025
    fnr_high, fpr_high = binomial_upper(trials - k, trials, tail), binomial_upper(k, trials, tail)
    with np.errstate(invalid="ignore"):
        shown = special.ndtri(1 - fpr_high)[None, :] - special.ndtri(fnr_high)[:, None]
    weight = stats.binom.pmf(k, trials, tpr)[:, None] * stats.binom.pmf(k, trials, fpr)[None, :]
    return float(weight[shown > mu].sum())


class TestEpsilon:
    @pytest.mark.parametrize(("mu", "epsilon"), [(1.0, 4.377), (1 / math.sqrt(10), 1.199), (0.1, 0.341)])
    def test_published(self, mu, epsilon):
        assert bounds.gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=6e-4)

    @pytest.mark.parametrize(("delta", "epsilon"), [(1e-9, 6.17), (1e-5, 4.38), (1e-4, 3.80)])
    def test_published_over_delta(self, delta, epsilon):
        assert bounds.gaussian_epsilon(1.0, delta) == pytest.approx(epsilon, abs=5e-3)

    def test_edges(self):
        assert bounds.gaussian_epsilon(0.0, 1e-5) == 0.0
        assert bounds.gaussian_epsilon(1e-9, 1e-5) == 0.0
        assert bounds.gaussian_epsilon(100.0, 1e-5) == pytest.approx(5000 + 100 * 4.265, rel=1e-3)
        for bad in (-1.0, math.inf, math.nan):
            with pytest.raises(BadSetting):
                bounds.gaussian_epsilon(bad, 1e-5)

    def test_tpr(self):
        rates = np.array([0.0, 0.001, 0.5, 1.0])
        np.testing.assert_allclose(bounds.gaussian_tpr(0.0, rates), rates, atol=1e-12)
        assert bounds.gaussian_tpr(1.0, 0.5) == pytest.approx(special.ndtr(1.0))
        with pytest.raises(BadSetting):
            bounds.gaussian_tpr(1.0, 1.5)


class TestGdp:
    def test_by_hand(self):
        bound = bounds.gdp(90, 100, 20, 100, delta=1e-5)
        fnr, fpr = binomial_interval(10, 100).high, binomial_interval(20, 100).high
        assert bound.mu_lower == pytest.approx(special.ndtri(1 - fpr) - special.ndtri(fnr))
        assert bound.epsilon_lower == pytest.approx(bounds.gaussian_epsilon(bound.mu_lower, 1e-5))
        assert (bound.fnr_high, bound.fpr_high) == pytest.approx((fnr, fpr))

    @pytest.mark.parametrize("hits", [0, 2, 110, 125, 140])
    def test_no_leak_shows_nothing(self, hits):
        """A peer reports ε ≈ 7 at 250 a side without a leak: an absolute value where 0 belongs."""
        bound = bounds.gdp(hits, 250, hits, 250, delta=1e-5)
        assert bound.mu_lower == bound.epsilon_lower == 0.0

    def test_reversed_rule_shows_nothing(self):
        assert bounds.gdp(10, 250, 240, 250, delta=1e-5).epsilon_lower == 0.0

    @pytest.mark.parametrize("trials", [200, 500])
    @pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 3.0])
    @pytest.mark.parametrize("fpr", [0.01, 0.2, 0.5])
    def test_gaussian_keeps_below(self, mu, fpr, trials):
        """P[μ_lower > μ] at a threshold fixed in advance, exactly: at most the stated 5%."""
        assert chance_of_exceeding(mu, special.ndtr(mu + special.ndtri(fpr)), fpr, trials) <= 0.05

    def test_power(self):
        """μ = 1, 10,000 a side: more than nine tenths of μ."""
        right = round(10_000 * special.ndtr(0.5))
        assert 0.9 < bounds.gdp(right, 10_000, 10_000 - right, 10_000, delta=1e-5).mu_lower < 1.0

    def test_holds_for_gaussian_mechanisms_only_and_says_so(self):
        """Randomised response of ε = 1: the figure exceeds the true ε, which is why it carries its condition."""
        right = round(4000 * special.expit(1.0))
        bound = bounds.gdp(right, 4000, 4000 - right, 4000, delta=1e-5)
        assert bound.epsilon_lower > 1.0
        assert bound.assumptions[0].startswith("If the mechanism's trade-off is Gaussian")

    @given(counts, counts, st.sampled_from([1e-9, 1e-5, 0.3]), st.sampled_from([0.5, 0.95, 0.999999]))
    def test_finite_and_not_negative_for_any_counts(self, inside, outside, delta, confidence):
        bound = bounds.gdp(*inside, *outside, delta, confidence)
        assert 0.0 <= bound.mu_lower < math.inf
        assert 0.0 <= bound.epsilon_lower < math.inf

    def test_bad_input(self):
        with pytest.raises(BadCounts):
            bounds.gdp(6, 5, 0, 5, delta=1e-5)
        with pytest.raises(BadSetting, match="no finite"):
            bounds.gdp(5, 5, 0, 5, delta=0.0)
        with pytest.raises(BadSetting):
            bounds.gdp(5, 5, 0, 5, delta=1e-5, confidence=0.0)
