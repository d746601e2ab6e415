"""Lower bounds on ε whose error is computed exactly, and ceilings against mechanisms that reach them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from securekd_attacks import BadCounts, BadSetting, auc_ceiling, binomial_interval, ceiling, clopper_pearson
from securekd_attacks.bounds import refuted_epsilon

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
deltas = st.sampled_from([0.0, 1e-9, 1e-5, 0.01, 0.3])


def chance_of_exceeding(epsilon, tpr, fpr, trials, delta=0.0):
    """The exact probability that the bound lies above ε, summed over all pairs of counts."""
    hits, alarms = np.arange(trials + 1)[:, None], np.arange(trials + 1)[None, :]
    bounds = refuted_epsilon(hits, trials, alarms, trials, delta, 0.95)
    weight = stats.binom.pmf(hits, trials, tpr) * stats.binom.pmf(alarms, trials, fpr)
    return float(weight[bounds > epsilon].sum())


class TestClopperPearson:
    def test_by_hand(self):
        bound = clopper_pearson(90, 100, 20, 100, delta=0.01, confidence=0.95)
        tpr, fpr = binomial_interval(90, 100, 0.95), binomial_interval(20, 100, 0.95)
        upward = math.log((tpr.low - 0.01) / fpr.high)
        downward = math.log((1 - fpr.high - 0.01) / (1 - tpr.low))
        assert bound.epsilon_lower == pytest.approx(max(upward, downward))
        assert downward > upward
        assert (bound.tpr_low, bound.fpr_high) == pytest.approx((tpr.low, fpr.high))

    def test_both_directions_count(self):
        few_alarms = clopper_pearson(50, 100, 0, 100, delta=0.0)
        few_misses = clopper_pearson(100, 100, 50, 100, delta=0.0)
        assert few_alarms.epsilon_lower == pytest.approx(few_misses.epsilon_lower)
        assert few_alarms.epsilon_lower > 2

    def test_carries_its_assumptions(self):
        bound = clopper_pearson(90, 100, 20, 100, delta=1e-5, confidence=0.95)
        text = " ".join(bound.assumptions)
        for word in ("fixed before", "independent", "halves", "δ = 1e-05", "no assumption on the shape"):
            assert word in text
        assert (bound.delta, bound.confidence) == (1e-5, 0.95)

    @settings(deadline=None)
    @given(counts, counts, deltas, st.sampled_from([0.5, 0.95, 0.999999]))
    def test_finite_and_not_negative_for_any_counts(self, inside, outside, delta, confidence):
        bound = clopper_pearson(*inside, *outside, delta, confidence)
        assert 0.0 <= bound.epsilon_lower < math.inf
        assert 0.0 <= bound.tpr_low <= bound.true_positives / bound.members
        assert bound.false_positives / bound.nonmembers <= bound.fpr_high <= 1.0

    @pytest.mark.parametrize("trials", [1, 10, 10**6, 10**15])
    def test_perfect_attack_is_finite(self, trials):
        bound = clopper_pearson(trials, trials, 0, trials, delta=0.0)
        assert 0.0 <= bound.epsilon_lower < math.inf
        assert bound.epsilon_lower == pytest.approx(max(0.0, math.log(trials / -math.log(0.025))), abs=0.5)

    @settings(deadline=None)
    @given(counts, counts, deltas)
    def test_is_where_the_ceiling_meets_the_limits(self, inside, outside, delta):
        bound = clopper_pearson(*inside, *outside, delta)
        highest = ceiling(bound.epsilon_lower, delta, bound.fpr_high)
        if bound.epsilon_lower > 0:
            assert highest == pytest.approx(bound.tpr_low, abs=1e-9)
        else:
            assert highest >= bound.tpr_low - 1e-9

    def test_grows_with_evidence_and_shrinks_with_delta_and_confidence(self):
        base = clopper_pearson(80, 100, 20, 100, 1e-5, 0.95).epsilon_lower
        assert clopper_pearson(800, 1000, 200, 1000, 1e-5, 0.95).epsilon_lower > base
        assert clopper_pearson(85, 100, 20, 100, 1e-5, 0.95).epsilon_lower > base
        assert clopper_pearson(80, 100, 20, 100, 0.1, 0.95).epsilon_lower < base
        assert clopper_pearson(80, 100, 20, 100, 1e-5, 0.99).epsilon_lower < base

    def test_reversed_rule_shows_nothing(self):
        assert clopper_pearson(10, 100, 90, 100, 0.0).epsilon_lower == 0.0

    @pytest.mark.parametrize("trials", [1, 20, 200, 500])
    @pytest.mark.parametrize("rate", [0.001, 0.05, 0.3, 0.5, 0.9, 0.999])
    def test_no_leak_no_alarm(self, trials, rate):
        """P[ε_lower > 0] without a leak, exactly: at most the stated 5%."""
        assert chance_of_exceeding(0.0, rate, rate, trials) <= 0.05

    @pytest.mark.parametrize("trials", [20, 200, 500])
    @pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
    def test_randomised_response(self, epsilon, trials):
        """P[ε_lower > ε] for a mechanism of exactly this ε, exactly: at most the stated 5%."""
        assert chance_of_exceeding(epsilon, special.expit(epsilon), special.expit(-epsilon), trials) <= 0.05

    @pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2, 0.5])
    def test_gaussian(self, fpr):
        """The same with μ = 1 at δ = 1e-5, whose ε is 4.377, at four thresholds fixed in advance."""
        tpr = special.ndtr(1.0 + special.ndtri(fpr))
        assert chance_of_exceeding(4.377, tpr, fpr, 250, delta=1e-5) <= 0.05

    @pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
    def test_power(self, epsilon):
        """A bound that is always zero would pass all of the above: with 10,000 a side it reaches 0.8 ε."""
        hits, alarms = round(10_000 * special.expit(epsilon)), round(10_000 * special.expit(-epsilon))
        assert clopper_pearson(hits, 10_000, alarms, 10_000, 0.0).epsilon_lower > 0.8 * epsilon

    @pytest.mark.parametrize("bad", [(-1, 5, 0, 5), (6, 5, 0, 5), (1, 5, 0, 0), (1.5, 5, 0, 5), (1, 5, 9, 5)])
    def test_impossible_counts(self, bad):
        with pytest.raises(BadCounts):
            clopper_pearson(*bad, 0.0)

    @pytest.mark.parametrize(("delta", "confidence"), [(-1e-9, 0.95), (1.0, 0.95), (math.nan, 0.95), (0.0, 1.0)])
    def test_settings_out_of_range(self, delta, confidence):
        with pytest.raises(BadSetting):
            clopper_pearson(1, 5, 0, 5, delta, confidence)


class TestCeiling:
    @pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 4.0, 30.0])
    def test_randomised_response_reaches_it(self, epsilon):
        assert ceiling(epsilon, 0.0, special.expit(-epsilon)) == pytest.approx(special.expit(epsilon))

    def test_gaussian_touches_it_and_stays_below(self):
        fpr = np.linspace(1e-6, 1 - 1e-6, 20_001)
        gap = ceiling(4.377, 1e-5, fpr) - special.ndtr(1.0 + special.ndtri(fpr))
        assert gap.min() > -1e-8
        assert gap.min() < 1e-6

    def test_by_hand(self):
        assert ceiling(0.0, 0.0, 0.3) == pytest.approx(0.3)
        assert ceiling(0.0, 0.1, 0.3) == pytest.approx(0.4)
        assert ceiling(math.log(3), 0.0, 0.1) == pytest.approx(0.3)
        assert ceiling(math.log(3), 0.0, 0.7) == pytest.approx(0.9)
        assert ceiling(1.0, 1e-5, 0.0) == pytest.approx(1e-5)
        assert ceiling(1.0, 0.2, 0.9) == 1.0

    def test_no_promise_permits_everything(self):
        assert ceiling(math.inf, 0.0, 0.0) == 1.0
        assert auc_ceiling(math.inf, 0.0) == 1.0

    def test_huge_epsilon_does_not_overflow(self):
        with np.errstate(all="raise", under="ignore", divide="ignore"):
            assert ceiling(5000.0, 1e-5, 0.0) == pytest.approx(1e-5)
            assert ceiling(5000.0, 1e-5, 1e-300) == 1.0

    @settings(deadline=None)
    @given(st.floats(0, 50), deltas, st.lists(st.floats(0, 1), min_size=2, max_size=20))
    def test_is_a_rising_concave_curve_above_chance(self, epsilon, delta, fpr):
        rates = np.sort(np.array(fpr))
        values = ceiling(epsilon, delta, rates)
        assert values.shape == rates.shape
        assert np.all(np.diff(values) >= -1e-12)
        assert np.all(values >= rates - 1e-12)
        middle = ceiling(epsilon, delta, (rates[0] + rates[-1]) / 2)
        assert isinstance(middle, float)
        assert middle >= (values[0] + values[-1]) / 2 - 1e-12

    @pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.3, 0.0), (1.0, 1e-5), (2.0, 0.1), (8.0, 0.4)])
    def test_area_in_closed_form(self, epsilon, delta):
        corner, flat = (1 - delta) * special.expit(-epsilon), 1 - delta
        area, _ = integrate.quad(lambda x: ceiling(epsilon, delta, x), 0, 1, points=[corner, flat], epsabs=1e-10)
        assert auc_ceiling(epsilon, delta) == pytest.approx(area, abs=1e-8)

    @pytest.mark.parametrize("fpr", [-0.1, 1.1, math.nan, np.array([0.5, 2.0])])
    def test_fpr_out_of_range(self, fpr):
        with pytest.raises(BadSetting, match="fpr"):
            ceiling(1.0, 0.0, fpr)

    @pytest.mark.parametrize(("epsilon", "delta"), [(-0.1, 0.0), (math.nan, 0.0), (1.0, 1.0), (1.0, -0.1)])
    def test_promise_out_of_range(self, epsilon, delta):
        with pytest.raises(BadSetting):
            ceiling(epsilon, delta, 0.5)
        with pytest.raises(BadSetting):
            auc_ceiling(epsilon, delta)
