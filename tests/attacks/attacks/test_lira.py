"""LiRA against Neyman and Pearson, against the obvious loop, and at the edges of the input."""

import tracemalloc

import numpy as np
import pytest
from scipy import special, stats

from securekd_attacks import BadSetting, NotFiniteScores, ShapeMismatch, TooFewRecords, auc, lira, tpr_at_fpr
from securekd_attacks.references import covered

VARIANCES = ["per_example", "pooled", "residual"]


def draw(seed, references=64, records=300, inside=(1.0, 1.0), outside=(0.0, 1.0), spread_of_means=2.0):
    """Records of differing difficulty: scaled logits normal about a mean of their own, higher when trained with."""
    rng = np.random.default_rng(seed)
    included = rng.random((references, records)) < 0.5
    base = spread_of_means * rng.normal(size=records)
    noise = rng.normal(size=(references, records))
    signals = base + np.where(included, inside[0] + inside[1] * noise, outside[0] + outside[1] * noise)
    member = rng.random(records) < 0.5
    own = rng.normal(size=records)
    target = base + np.where(member, inside[0] + inside[1] * own, outside[0] + outside[1] * own)
    return target, signals, included, member


def by_the_book(target, signals, included, variance, mode):
    """One record at a time, with scipy's densities."""
    found = []
    for side in (included, ~included):
        means = np.array([signals[side[:, i], i].mean() for i in range(len(target))])
        if variance == "per_example":
            spreads = np.array([signals[side[:, i], i].std(ddof=1) for i in range(len(target))])
        elif variance == "pooled":
            spreads = np.full(len(target), signals[side].std())
        else:
            deviations = [signals[side[:, i], i] - means[i] for i in range(len(target))]
            freedom = sum(len(each) - 1 for each in deviations)
            spreads = np.full(len(target), np.sqrt(sum((each**2).sum() for each in deviations) / freedom))
        found.append((means, spreads))
    if mode == "offline":
        return (target - found[1][0]) / found[1][1]
    return stats.norm.logpdf(target, *found[0]) - stats.norm.logpdf(target, *found[1])


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_is_the_obvious_loop(variance, mode):
    target, signals, included, _ = draw(1)
    expected = by_the_book(target, signals, included, variance, mode)
    np.testing.assert_allclose(lira.scores(target, signals, included, variance, mode), expected, rtol=1e-9)
    single = lira.scores(target, signals.astype(np.float32), included, variance, mode)
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-4)


def test_blocks_do_not_show(monkeypatch):
    target, signals, included, _ = draw(2)
    whole = [lira.scores(target, signals, included, v, "online") for v in VARIANCES]
    monkeypatch.setattr("securekd_attacks.references.inclusion.BLOCK_VALUES", 7 * 64)
    for one, variance in zip(whole, VARIANCES, strict=True):
        np.testing.assert_allclose(lira.scores(target, signals, included, variance, "online"), one, rtol=1e-12)


@pytest.mark.parametrize(
    ("inside", "outside"), [((0.0, 1.0), (0.0, 2.0)), ((1.0, 2.0), (0.0, 1.0)), ((1.0, 0.5), (0.0, 1.5))]
)
@pytest.mark.parametrize("variance", ["per_example", "residual"])
def test_reaches_neyman_and_pearson_also_where_the_ratio_is_not_monotone(inside, outside, variance):
    """4,000 records, 400 references, 5 seeds: within three standard errors of the best test of the two normals.

    In the first case the means are equal, so that any rule on the raw signal is blind, and LiRA is not.
    """
    optimum, found, raw = [], [], []
    for seed in range(5):
        target, signals, included, member = draw(100 + seed, 400, 4000, inside, outside, spread_of_means=0.0)
        best = stats.norm.logpdf(target, *inside) - stats.norm.logpdf(target, *outside)
        ours = lira.scores(target, signals, included, variance, "online")
        for results, scores in ((optimum, best), (found, ours), (raw, target)):
            results.append(auc(scores[member], scores[~member]).value)
    assert np.mean(found) == pytest.approx(np.mean(optimum), abs=0.006)
    assert np.mean(found) > np.mean(raw) + 0.02 or inside[1] > outside[1]
    if inside[0] == outside[0]:
        assert np.mean(raw) == pytest.approx(0.5, abs=0.02)
        assert np.mean(found) > 0.65


def test_equal_variances_reach_the_analytic_curve():
    """N(0, 1) against N(1, 1): TPR = Φ(μ + Φ⁻¹(FPR)), whatever each record's own difficulty."""
    target, signals, included, member = draw(3, 200, 20_000)
    scores = lira.scores(target, signals, included, "residual", "online")
    for fpr in (0.01, 0.1):
        found = tpr_at_fpr(scores[member], scores[~member], fpr)
        assert found.low - 0.01 < special.ndtr(1.0 + special.ndtri(fpr)) < found.high + 0.01


def test_residual_beats_pooled_where_records_differ_and_per_example_where_references_are_few():
    """Named apart because they differ: 8 references, IN narrower than OUT, 20,000 records."""
    target, signals, included, member = draw(4, 8, 20_000, (1.0, 0.5), (0.0, 1.0), spread_of_means=4.0)
    enough = covered(included, 2, 2)
    area = {}
    for variance in VARIANCES:
        scores = lira.scores(target[enough], signals[:, enough], included[:, enough], variance, "online")
        area[variance] = auc(scores[member[enough]], scores[~member[enough]]).value
    assert area["residual"] > area["pooled"] + 0.01
    assert area["residual"] > area["per_example"] + 0.01


def test_without_leak_is_chance():
    """20 seeds: the 95% interval of the AUC covers 0.5 in at least 16 (false alarm below 1%)."""
    hits = 0
    for seed in range(20):
        target, signals, included, member = draw(200 + seed, 16, 600, (0.0, 1.0), (0.0, 1.0))
        kept = covered(included)
        target, signals, included, member = target[kept], signals[:, kept], included[:, kept], member[kept]
        scores = lira.scores(target, signals, included, "residual", "online")
        interval = auc(scores[member], scores[~member])
        hits += interval.low <= 0.5 <= interval.high
    assert hits >= 16


def test_offline_takes_the_references_without_a_record_alone():
    target, signals, included, _ = draw(5)
    noisy = np.where(included, 1e3, signals)
    np.testing.assert_array_equal(
        lira.scores(target, noisy, included, "residual", "offline"),
        lira.scores(target, signals, included, "residual", "offline"),
    )
    out_alone = np.zeros_like(included)
    assert np.all(np.isfinite(lira.scores(target, signals, out_alone, "per_example", "offline")))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_references_without_spread_stay_finite_and_turned_right(variance, mode):
    """A hash table: ±744 and nothing between."""
    included = np.tile(np.array([[True], [False]]), (4, 6))
    signals = np.where(included, 744.44, -744.44)
    scores = lira.scores(np.array([744.44] * 3 + [-744.44] * 3), signals, included, variance, mode)
    assert np.all(np.isfinite(scores))
    assert scores[:3].min() > scores[3:].max()


def test_rows_without_a_side_are_refused_by_name():
    target, signals, included, _ = draw(6)
    all_in, all_out = included.copy(), included.copy()
    all_in[:, 17], all_out[:, 23] = True, False
    with pytest.raises(TooFewRecords, match="out of too few of 64 references, first record 17"):
        lira.scores(target, signals, all_in, "residual", "offline")
    with pytest.raises(TooFewRecords, match="in too few of 64 references, first record 23"):
        lira.scores(target, signals, all_out, "residual", "online")
    one = included.copy()
    one[:, 5] = False
    one[0, 5] = True
    assert np.all(np.isfinite(lira.scores(target, signals, one, "residual", "online")))
    with pytest.raises(TooFewRecords, match="record 5; 2 are needed"):
        lira.scores(target, signals, one, "per_example", "online")


def test_covered_names_the_records_that_can_be_scored():
    included = np.array([[True, False, True, True], [True, False, False, True], [True, False, False, False]])
    np.testing.assert_array_equal(covered(included), [False, False, True, True])
    np.testing.assert_array_equal(covered(included, fewest_in=0), [False, True, True, True])
    np.testing.assert_array_equal(covered(included, fewest_out=2), [False, False, True, False])
    with pytest.raises(ShapeMismatch):
        covered(included[0])


def test_memory_stays_near_the_signals():
    target, signals, included, _ = draw(7, 256, 10_000)
    signals = signals.astype(np.float32)
    tracemalloc.start()
    lira.scores(target, signals, included, "per_example", "online")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * signals.nbytes


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t, s, i: (t[:-1], s, i), ShapeMismatch),
        (lambda t, s, i: (t, s, i[:-1]), ShapeMismatch),
        (lambda t, s, i: (t, s, i.astype(int)), ShapeMismatch),
        (lambda t, s, i: (t, s[0], i), ShapeMismatch),
        (lambda t, s, i: (t, s[:, :0], i), TooFewRecords),
        (lambda t, s, i: (np.where(np.arange(300) == 4, np.nan, t), s, i), NotFiniteScores),
        (lambda t, s, i: (t, np.where(np.arange(300) == 4, -np.inf, s), i), NotFiniteScores),
    ],
)
def test_refuses(change, error):
    target, signals, included, _ = draw(8)
    with pytest.raises(error):
        lira.scores(*change(target, signals, included), "residual", "online")


def test_refuses_unknown_settings():
    target, signals, included, _ = draw(9)
    with pytest.raises(BadSetting, match="variance"):
        lira.scores(target, signals, included, "fixed", "online")
    with pytest.raises(BadSetting, match="mode"):
        lira.scores(target, signals, included, "residual", "both")
