"""Bounds from one run: against the papers' own loops, with error rates that are computed exactly, and with power."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from securekd_attacks import BadCounts, BadSetting, bounds
from securekd_attacks.bounds.single_run import _refutes_gaussian

ERROR = 0.05
guessing = st.integers(1, 300).flatmap(
    lambda m: st.integers(1, m).flatmap(lambda r: st.tuples(st.just(m), st.just(r), st.integers(0, r)))
)


def papers_p_value(m, r, v, epsilon, delta):
    """The loop of Steinke et al., appendix D, in the words of the paper."""
    q = 1 / (1 + math.exp(-epsilon))
    beta = stats.binom.sf(v - 1, r, q)
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += stats.binom.pmf(v - i, r, q)
        alpha = max(alpha, total / i)
    return min(1.0, beta + alpha * delta * 2 * m)


def papers_recursion(mu, m, guesses, correct, error):
    """Algorithm 3 of Mahloujifar et al., with whole lists and no early end."""
    h, r = np.zeros(correct + 1), np.zeros(correct + 1)
    h[correct], r[correct] = error * (guesses - correct) / m, error * correct / m
    for i in range(correct - 1, -1, -1):
        h[i] = max(h[i + 1], special.ndtr(special.ndtri(r[i + 1]) - mu))
        r[i] = r[i + 1] + i / (guesses - i) * (h[i] - h[i + 1])
    return r[0] + h[0] > guesses / m


def chance_of_refuting(guesses, accuracy, refuted):
    """The exact chance that as many correct guesses come about as `refuted` needs; it is monotone in them."""
    low, high = 0, guesses + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if refuted(middle) else (middle + 1, high)
    return float(stats.binom.sf(low - 1, guesses, accuracy))


ELSEWHERE = [
    (1000, 1000, 650, 1e-9, 0.508202, 1.455081),
    (1000, 1000, 650, 1e-5, 0.507950, 0.967527),
    (100_000, 1000, 958, 1e-9, 2.863497, 4.741952),
    (100_000, 1000, 958, 1e-5, 2.610737, 3.320157),
    (4000, 100, 97, 1e-5, 2.461697, 3.298086),
    (500, 500, 250, 1e-5, 0.0, 0.0),
]
"""Canaries, guesses, correct, δ, and both bounds as jax-privacy 2.0.0 computes them for fixed guesses."""


@pytest.mark.parametrize("row", ELSEWHERE)
def test_agrees_with_an_independent_implementation(row):
    *counts, delta, pure, gaussian = row
    assert bounds.one_run(*counts, delta=delta).epsilon_lower == pytest.approx(pure, abs=2e-6)
    assert bounds.one_run_fdp(*counts, delta=delta).epsilon_lower == pytest.approx(gaussian, abs=2e-6)


class TestOneRun:
    @settings(max_examples=60)
    @given(guessing, st.floats(0, 6), st.sampled_from([0.0, 1e-9, 1e-5, 1e-3, 0.1]))
    def test_p_value_is_the_papers(self, counts, epsilon, delta):
        ours = bounds.one_run_p_value(*counts, epsilon=epsilon, delta=delta)
        assert ours == pytest.approx(papers_p_value(*counts, epsilon, delta), rel=1e-9, abs=1e-15)

    def test_by_hand(self):
        assert bounds.one_run_p_value(10, 2, 2, epsilon=math.log(3), delta=0.0) == pytest.approx(9 / 16)
        # alpha = max(6/16, 7/32) and 2mδ = 0.2
        assert bounds.one_run_p_value(10, 2, 2, epsilon=math.log(3), delta=0.01) == pytest.approx(9 / 16 + 0.2 * 6 / 16)
        assert bounds.one_run_p_value(10, 5, 0, epsilon=0.0, delta=0.0) == 1.0

    @settings(max_examples=60)
    @given(guessing, st.sampled_from([0.0, 1e-9, 1e-5, 1e-3]), st.sampled_from([0.5, 0.95, 0.999]))
    def test_is_the_edge_of_what_is_refuted(self, counts, delta, confidence):
        bound = bounds.one_run(*counts, delta=delta, confidence=confidence)
        assert 0.0 <= bound.epsilon_lower <= bound.epsilon_lower_pure < math.inf
        if bound.epsilon_lower > 0:
            at, above = (
                bounds.one_run_p_value(*counts, epsilon=e, delta=delta)
                for e in (bound.epsilon_lower, bound.epsilon_lower + 1e-6)
            )
            assert at <= 1 - confidence < above

    @pytest.mark.parametrize("guesses", [200, 500, 4000])
    def test_no_leak_no_alarm(self, guesses):
        """P[ε_lower > 0] without a leak, exactly: at most the stated 5%."""
        for delta in (0.0, 1e-5):
            alarm = chance_of_refuting(
                guesses, 0.5, lambda v, d=delta: bounds.one_run_p_value(guesses, guesses, v, 0.0, d) <= ERROR
            )
            assert alarm <= ERROR
        assert alarm > ERROR / 4

    @pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
    @pytest.mark.parametrize("guesses", [200, 4000])
    def test_randomised_response(self, epsilon, guesses):
        """P[ε_lower > ε] for a mechanism of exactly this ε, exactly: at most the stated 5%."""
        accuracy = special.expit(epsilon)
        refuted = lambda v: bounds.one_run_p_value(guesses, guesses, v, epsilon, 0.0) <= ERROR  # noqa: E731
        assert chance_of_refuting(guesses, accuracy, refuted) <= ERROR

    @pytest.mark.parametrize("guesses", [200, 4000])
    def test_gaussian(self, guesses):
        """μ = 1 at δ = 1e-5 is ε = 4.377; every canary is guessed; exactly, at most the stated 5%."""
        refuted = lambda v: bounds.one_run_p_value(guesses, guesses, v, 4.377, 1e-5) <= ERROR  # noqa: E731
        assert chance_of_refuting(guesses, special.ndtr(0.5), refuted) <= ERROR

    @pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
    def test_power(self, epsilon):
        """Silence would pass all of the above: 10,000 canaries under randomised response show 0.8 ε."""
        correct = round(10_000 * special.expit(epsilon))
        assert bounds.one_run(10_000, 10_000, correct, delta=0.0).epsilon_lower >= 0.8 * epsilon

    def test_delta_costs_and_says_so(self):
        """A Gaussian with μ = 1 among 100,000 canaries, of which the 300 surest are guessed."""
        cheap, dear, useless = (bounds.one_run(100_000, 300, 291, delta=d) for d in (1e-9, 1e-5, 1e-4))
        assert not cheap.warnings
        assert cheap.epsilon_lower == pytest.approx(cheap.epsilon_lower_pure, rel=0.01)
        assert dear.epsilon_lower < 0.9 * dear.epsilon_lower_pure
        assert "2mδ = 2" in dear.warnings[0]
        assert useless.epsilon_lower == 0.0
        assert useless.warnings

    def test_perfect_and_hopeless_stay_finite(self):
        for canaries in (1, 10, 10**5):
            assert bounds.one_run(canaries, canaries, canaries, 1e-5).epsilon_lower < math.inf
            assert bounds.one_run(canaries, canaries, 0, 1e-5).epsilon_lower == 0.0
        assert bounds.one_run(10**5, 10**5, 10**5, 0.0).epsilon_lower == pytest.approx(
            -math.log(math.expm1(-math.log(0.05) / 10**5)), rel=1e-6
        )

    def test_is_quick(self):
        """100,000 canaries: the stated second of CPU is several times what it takes."""
        start = time.process_time()
        bounds.one_run(100_000, 100_000, 69_146, delta=1e-9)
        assert time.process_time() - start < 1.0

    def test_carries_its_assumptions(self):
        text = " ".join(bounds.one_run(10, 10, 9, 1e-5).assumptions)
        for word in ("fair coin", "not that", "depends on what the mechanism gave out", "δ = 1e-05", "not safety"):
            assert word in text

    @pytest.mark.parametrize("bad", [(10, 11, 5), (10, 5, 6), (0, 0, 0), (10, 0, 0), (10, 5, -1), (10, 5.0, 2)])
    def test_impossible_counts(self, bad):
        for bound in (bounds.one_run, bounds.one_run_fdp):
            with pytest.raises(BadCounts):
                bound(*bad, delta=1e-5)
        with pytest.raises(BadCounts):
            bounds.one_run_p_value(*bad, epsilon=1.0, delta=0.0)

    def test_settings_out_of_range(self):
        for bad in ({"delta": 1.0}, {"delta": math.nan}, {"delta": 0.0, "confidence": 1.0}):
            with pytest.raises(BadSetting):
                bounds.one_run(10, 5, 5, **bad)
        with pytest.raises(BadSetting):
            bounds.one_run_p_value(10, 5, 5, epsilon=-1.0, delta=0.0)


class TestOneRunFdp:
    @settings(max_examples=100)
    @given(guessing, st.floats(0, 4), st.sampled_from([0.01, 0.05, 0.5]))
    def test_is_the_papers_recursion(self, counts, mu, error):
        canaries, guesses, correct = counts
        if 0 < correct < guesses:
            ours = _refutes_gaussian(mu, guesses / canaries, guesses, correct, error)
            assert ours == papers_recursion(mu, canaries, guesses, correct, error)

    @pytest.mark.parametrize("guesses", [200, 500, 4000])
    @pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 3.0])
    def test_gaussian_keeps_below(self, mu, guesses):
        """P[μ_lower > μ] for independent Gaussian canaries that are all guessed, exactly: at most the stated 5%."""
        refuted = lambda v: v > guesses or _refutes_gaussian(mu, 1.0, guesses, v, ERROR)  # noqa: E731
        assert chance_of_refuting(guesses, special.ndtr(mu / 2), refuted) <= ERROR

    @pytest.mark.parametrize("seeds", [300])
    def test_gaussian_keeps_below_with_abstention(self, seeds):
        """The surest 100 of 4,000 canaries, μ = 1, 300 seeds: at most 5% and three standard errors, root 31."""
        above = 0
        for rng in np.random.default_rng(31).spawn(seeds):
            included = rng.random(4000) < 0.5
            seen = rng.normal(included.astype(float), 1.0) - 0.5
            chosen = np.argsort(-np.abs(seen))[:100]
            correct = int(np.count_nonzero((seen[chosen] > 0) == included[chosen]))
            above += bounds.one_run_fdp(4000, 100, correct, delta=1e-5).mu_lower > 1.0
        assert above / seeds <= ERROR + 3 * math.sqrt(ERROR * (1 - ERROR) / seeds)

    def test_chance_shows_nothing(self):
        """A peer has a floor of 0.34 here."""
        for guesses in (100, 1000, 10_000):
            bound = bounds.one_run_fdp(guesses, guesses, guesses // 2, delta=1e-5)
            assert bound.mu_lower == bound.epsilon_lower == 0.0

    def test_power(self):
        """μ = 1 (ε = 4.377), the surest 1,000 of 100,000, 958 right: more than the bound without the assumption."""
        bound = bounds.one_run_fdp(100_000, 1000, 958, delta=1e-5)
        assert 3.2 < bound.epsilon_lower < 4.377
        assert bound.epsilon_lower > bounds.one_run(100_000, 1000, 958, delta=1e-5).epsilon_lower

    def test_holds_for_gaussian_mechanisms_only_and_says_so(self):
        """Randomised response of ε = 1: the figure exceeds the true ε, which is why it carries its condition."""
        bound = bounds.one_run_fdp(10_000, 10_000, round(10_000 * special.expit(1.0)), delta=1e-5)
        assert bound.epsilon_lower > 1.0
        assert bound.assumptions[0].startswith("If the mechanism's trade-off is Gaussian")

    @pytest.mark.parametrize("counts", [(1, 1, 1), (1, 1, 0), (10**5, 10**5, 10**5), (10**5, 1, 1), (10**6, 10**3, 0)])
    def test_edges_stay_finite(self, counts):
        bound = bounds.one_run_fdp(*counts, delta=1e-5)
        assert 0.0 <= bound.mu_lower < math.inf
        assert 0.0 <= bound.epsilon_lower < math.inf

    def test_no_finite_epsilon_without_delta(self):
        with pytest.raises(BadSetting, match="no finite"):
            bounds.one_run_fdp(10, 10, 9, delta=0.0)
