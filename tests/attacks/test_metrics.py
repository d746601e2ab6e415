"""Metrics against slow and obvious twins, by hand on ties, and under what must not change them."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_attacks import (
    BadSetting,
    NotFiniteScores,
    ShapeMismatch,
    TooFewRecords,
    auc,
    binomial_interval,
    nonmembers_to_resolve,
    roc,
    tpr_at_fpr,
)

few_levels = st.lists(st.integers(-4, 4), min_size=2, max_size=25)
any_scores = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=25)
scores = st.one_of(few_levels, any_scores)
rates = st.one_of(st.sampled_from([0.001, 0.01, 0.1, 0.29, 0.5, 1.0]), st.floats(1e-3, 1.0))
METRICS = [auc, roc, lambda members, nonmembers: tpr_at_fpr(members, nonmembers, 0.1)]


def auc_by_pairs(members, nonmembers):
    won = sum((m > n) + 0.5 * (m == n) for m in members for n in nonmembers)
    return won / (len(members) * len(nonmembers))


def tpr_by_trying(members, nonmembers, fpr):
    best = 0.0
    for threshold in [*members, *nonmembers]:
        if sum(n >= threshold for n in nonmembers) / len(nonmembers) <= fpr:
            best = max(best, sum(m >= threshold for m in members) / len(members))
    return best


def fields(result, *, without=()):
    given_fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in given_fields.items()
        if name not in without
    }


class TestAuc:
    def test_ties_by_hand(self):
        assert auc([1, 2, 2, 3], [0, 2, 2]).value == pytest.approx((1 + 2 + 2 + 3) / 12)
        assert auc([1, 1], [1, 1, 1]).value == 0.5
        assert auc([0, 1], [0, 1]).value == 0.5
        assert auc([2, 3], [0, 1]).value == 1.0
        assert auc([0, 1], [2, 3]).value == 0.0

    @settings(deadline=None)
    @given(scores, scores)
    def test_equal_to_counting_pairs(self, members, nonmembers):
        assert auc(members, nonmembers).value == pytest.approx(auc_by_pairs(members, nonmembers), abs=1e-12)

    @settings(deadline=None)
    @given(scores, scores, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
    def test_interval_has_an_inside_and_holds_the_value(self, members, nonmembers, confidence):
        result = auc(members, nonmembers, confidence)
        assert 0.0 <= result.low <= result.value <= result.high <= 1.0
        assert result.high - result.low > 1e-4
        assert (result.members, result.nonmembers) == (len(members), len(nonmembers))

    @settings(deadline=None)
    @given(scores, scores)
    def test_turning_sides_mirrors_everything(self, members, nonmembers):
        result, mirror = auc(members, nonmembers), auc(nonmembers, members)
        assert (result.value, result.low, result.high) == pytest.approx(
            (1 - mirror.value, 1 - mirror.high, 1 - mirror.low), abs=1e-9
        )

    def test_more_confidence_is_wider(self):
        rng = np.random.default_rng(0)
        members, nonmembers = rng.normal(0.3, 1.0, 40), rng.normal(size=60)
        widths = [auc(members, nonmembers, confidence) for confidence in (0.5, 0.8, 0.95, 0.999, 1 - 1e-16)]
        for narrow, wide in itertools.pairwise(widths):
            assert wide.low < narrow.low < narrow.high < wide.high

    def test_no_separation_that_looks_perfect_is_certain(self):
        """Three above three happens in one of twenty shuffles: the interval must say how little that is."""
        assert auc([4, 5, 6], [1, 2, 3]).low < 0.7
        assert auc(np.arange(1000, 2000), np.arange(1000)).low > 0.99

    def test_all_tied_narrows_with_records(self):
        small, large = auc(np.zeros(5), np.zeros(5)), auc(np.zeros(500), np.zeros(500))
        assert small.low < 0.3 < 0.7 < small.high
        assert 0.49 < large.low < 0.5 < large.high < 0.51

    def test_interval_agrees_with_delong_where_there_is_plenty(self):
        rng = np.random.default_rng(1)
        members, nonmembers = rng.normal(0.5, 1.0, 2000), rng.normal(size=2000)
        wins = (members[:, None] > nonmembers[None, :]).astype(float)
        error = np.sqrt(wins.mean(axis=1).var(ddof=1) / 2000 + wins.mean(axis=0).var(ddof=1) / 2000)
        result = auc(members, nonmembers)
        assert (result.high - result.low) == pytest.approx(2 * 1.96 * error, rel=0.01)

    def test_a_hundred_thousand_a_side(self):
        rng = np.random.default_rng(2)
        members, nonmembers = rng.normal(size=100_000), rng.normal(size=100_000)
        start = time.process_time()
        auc(members, nonmembers)
        tpr_at_fpr(members, nonmembers, 0.001)
        assert time.process_time() - start < 2.0  # counting pairs would take minutes


class TestTprAtFpr:
    def test_ties_by_hand(self):
        members, nonmembers = [3, 2, 2, 1], [2, 1, 1, 0]
        strict = tpr_at_fpr(members, nonmembers, 0.2)
        assert (strict.value, strict.realised_fpr, strict.threshold) == (0.25, 0.0, 3.0)
        half = tpr_at_fpr(members, nonmembers, 0.5)  # the next rule would call 3 of 4 non-members members
        assert (half.value, half.realised_fpr, half.threshold) == (0.75, 0.25, 2.0)
        assert (half.true_positives, half.false_positives) == (3, 1)
        loose = tpr_at_fpr(members, nonmembers, 0.75)
        assert (loose.value, loose.realised_fpr) == (1.0, 0.75)

    def test_all_tied_calls_nobody_rather_than_interpolate(self):
        result = tpr_at_fpr(np.zeros(50), np.zeros(50), 0.5)
        assert (result.value, result.realised_fpr, result.threshold) == (0.0, 0.0, None)
        assert result.low == 0.0
        assert result.high == binomial_interval(0, 50).high
        everybody = tpr_at_fpr(np.zeros(50), np.zeros(50), 1.0)
        assert (everybody.value, everybody.realised_fpr, everybody.threshold) == (1.0, 1.0, 0.0)

    def test_target_met_exactly_in_spite_of_rounding(self):
        nonmembers = np.arange(100)
        for percent in range(1, 101):
            assert tpr_at_fpr([200, 201], nonmembers, percent / 100).false_positives == percent

    @settings(deadline=None, max_examples=300)
    @given(scores, scores, rates)
    def test_equal_to_trying_every_threshold(self, members, nonmembers, fpr):
        result = tpr_at_fpr(members, nonmembers, fpr)
        assert result.value == tpr_by_trying(members, nonmembers, fpr)
        assert result.realised_fpr <= fpr
        if result.threshold is not None:
            assert result.true_positives == sum(m >= result.threshold for m in members)
            assert result.false_positives == sum(n >= result.threshold for n in nonmembers)

    @settings(deadline=None)
    @given(scores, scores, rates)
    def test_intervals_are_clopper_pearson(self, members, nonmembers, fpr):
        result = tpr_at_fpr(members, nonmembers, fpr, 0.9)
        tpr, fpr_interval = (
            binomial_interval(result.true_positives, len(members), 0.9),
            binomial_interval(result.false_positives, len(nonmembers), 0.9),
        )
        assert (result.low, result.high) == (tpr.low, tpr.high)
        assert (result.fpr_low, result.fpr_high) == (fpr_interval.low, fpr_interval.high)

    @settings(deadline=None)
    @given(scores, scores, rates)
    def test_auc_is_at_least_tpr_times_specificity(self, members, nonmembers, fpr):
        result = tpr_at_fpr(members, nonmembers, fpr)
        assert auc(members, nonmembers).value >= result.value * (1 - result.realised_fpr) - 1e-12

    def test_resolved_by_the_rule_of_three(self):
        assert [nonmembers_to_resolve(fpr) for fpr in (0.1, 0.01, 0.001)] == [29, 299, 2995]
        for fpr, needed in ((0.1, 29), (0.01, 299), (0.001, 2995)):
            few = tpr_at_fpr([0, 1], np.arange(needed - 1), fpr)
            enough = tpr_at_fpr([0, 1], np.arange(needed), fpr)
            assert (few.resolved, enough.resolved) == (False, True)
            assert few.nonmembers_needed == needed
            # One-sided at 95%, which is the upper end of a two-sided 90%: the meaning of "resolved".
            assert binomial_interval(0, needed - 1, 0.9).high > fpr >= binomial_interval(0, needed, 0.9).high

    def test_at_no_false_positive_it_is_the_share_above_every_nonmember_and_never_resolved(self):
        for nonmembers in (2, 2_995, 100_000):
            outside = np.arange(nonmembers)
            found = tpr_at_fpr([0, nonmembers - 1, nonmembers, nonmembers + 1], outside, 0.0)
            assert (found.value, found.true_positives, found.false_positives) == (0.5, 2, 0)
            assert (found.fpr, found.realised_fpr, found.threshold) == (0.0, 0.0, nonmembers)
            assert (found.resolved, found.nonmembers_needed) == (False, None)
            assert (found.fpr_low, found.fpr_high) == (0.0, binomial_interval(0, nonmembers).high)
            assert (found.low, found.high) == (binomial_interval(2, 4).low, binomial_interval(2, 4).high)

    def test_at_no_false_positive_ties_with_the_highest_nonmember_count_for_nothing(self):
        assert tpr_at_fpr([5, 5, 6], [1, 5], 0).value == pytest.approx(1 / 3)
        assert tpr_at_fpr([5, 5], [1, 5], -0.0).threshold is None
        with pytest.raises(BadSetting, match="nothing resolves zero"):
            nonmembers_to_resolve(0.0)

    def test_resolving_takes_more_for_more_confidence(self):
        assert nonmembers_to_resolve(0.01, 0.99) > nonmembers_to_resolve(0.01, 0.95)
        assert nonmembers_to_resolve(1.0) == 1


class TestRoc:
    def test_by_hand(self):
        curve = roc([1, 2, 2], [0, 2])
        assert curve.thresholds.tolist() == [np.inf, 2.0, 1.0, 0.0]
        assert curve.true_positives.tolist() == [0, 2, 3, 3]
        assert curve.false_positives.tolist() == [0, 1, 1, 2]

    @settings(deadline=None)
    @given(scores, scores)
    def test_its_area_is_the_auc(self, members, nonmembers):
        curve = roc(members, nonmembers)
        assert np.trapezoid(curve.value, curve.fpr) == pytest.approx(auc(members, nonmembers).value, abs=1e-12)
        assert (curve.value[0], curve.fpr[0], curve.value[-1], curve.fpr[-1]) == (0, 0, 1, 1)
        assert np.all(np.diff(curve.true_positives) + np.diff(curve.false_positives) >= 1)

    @settings(deadline=None)
    @given(scores, scores, rates)
    def test_tpr_at_fpr_lies_on_it(self, members, nonmembers, fpr):
        curve, point = roc(members, nonmembers), tpr_at_fpr(members, nonmembers, fpr)
        assert curve.value[curve.fpr <= fpr].max() == point.value

    def test_intervals_at_each_point(self):
        curve = roc([1, 2, 2, 5], [0, 2], confidence=0.9)
        for count, low, high in zip(curve.true_positives, curve.low, curve.high, strict=True):
            interval = binomial_interval(int(count), 4, 0.9)
            assert (low, high) == pytest.approx((interval.low, interval.high))

    def test_is_read_only(self):
        with pytest.raises(ValueError, match="read-only"):
            roc([1, 2], [0, 1]).value[0] = 1.0


@settings(deadline=None)
@given(scores, scores, st.randoms(use_true_random=False))
def test_order_of_the_input_changes_nothing(members, nonmembers, random):
    shuffled, other = list(members), list(nonmembers)
    random.shuffle(shuffled)
    random.shuffle(other)
    for metric in METRICS:
        assert fields(metric(members, nonmembers)) == fields(metric(shuffled, other))


def test_order_of_many_scores_changes_nothing_to_the_last_bit():
    rng = np.random.default_rng(3)
    members, nonmembers = rng.normal(size=3001), rng.normal(size=1999)
    first = fields(auc(members, nonmembers))
    for _ in range(20):
        assert fields(auc(rng.permutation(members), rng.permutation(nonmembers))) == first


@settings(deadline=None)
@given(few_levels, few_levels)
def test_only_the_order_of_scores_counts(members, nonmembers):
    for transform in (lambda x: np.exp(np.asarray(x) / 2.0), lambda x: np.asarray(x, dtype=float) ** 3 - 7.0):
        for metric in METRICS:
            plain, changed = metric(members, nonmembers), metric(transform(members), transform(nonmembers))
            unlike = {"threshold", "thresholds"}
            assert fields(plain, without=unlike) == fields(changed, without=unlike)


def test_input_is_left_alone():
    members, nonmembers = np.array([3.0, 1.0, 2.0]), np.array([5.0, 4.0])
    for metric in METRICS:
        metric(members, nonmembers)
    assert members.tolist() == [3.0, 1.0, 2.0]
    assert nonmembers.tolist() == [5.0, 4.0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ([1.0], TooFewRecords),
        ([], TooFewRecords),
        ([1.0, np.nan], NotFiniteScores),
        ([1.0, -np.inf], NotFiniteScores),
        ([1.0, np.inf], NotFiniteScores),
        (["a", "b"], NotFiniteScores),
        ([1j, 2j], NotFiniteScores),
        ([[1.0, 2.0]], ShapeMismatch),
        (1.0, ShapeMismatch),
    ],
)
def test_unfit_scores_are_refused_on_either_side(metric, bad, error):
    with pytest.raises(error, match="members"):
        metric(bad, [0.0, 1.0])
    with pytest.raises(error, match="nonmembers"):
        metric([0.0, 1.0], bad)


@pytest.mark.parametrize("fpr", [-0.1, 1.1, float("nan"), 1e-320])
def test_fpr_out_of_range(fpr):
    with pytest.raises(BadSetting, match="fpr"):
        tpr_at_fpr([0, 1], [0, 1], fpr)


@pytest.mark.parametrize("metric", METRICS[:2])
@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_confidence_out_of_range(metric, confidence):
    with pytest.raises(BadSetting, match="confidence"):
        metric([0, 1], [0, 1], confidence)
