"""RMIA with exact OUT means against the obvious loop over pairs, and against what filling up with zeros does."""

import math
import tracemalloc

import numpy as np
import pytest

from securekd_attacks import (
    BadProbabilities,
    BadSetting,
    NotFiniteScores,
    ShapeMismatch,
    TooFewRecords,
    rmia,
    tpr_at_fpr,
)
from securekd_attacks.inputs import LOG_ZERO

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def draw(seed, references=16, records=400, population=150, leak=1.0):
    """Log-probabilities of the true label, higher where trained with; records differ in difficulty."""
    rng = np.random.default_rng(seed)
    included = rng.random((references, records)) < 0.5
    member = rng.random(records) < 0.5
    base = 2 * rng.normal(size=records)
    logit = base + leak * included + rng.normal(size=included.shape)
    target = base + leak * member + rng.normal(size=records)
    ground = 2 * rng.normal(size=population)
    others = ground + rng.normal(size=(references, population))
    own = ground + rng.normal(size=population)
    return (
        *(-np.logaddexp(0, -x) for x in (target, logit)),
        included,
        -np.logaddexp(0, -own),
        -np.logaddexp(0, -others),
        member,
    )


def pairwise(target, references, included, population, others, mode, gamma, a):
    """Every record against every population record, with probabilities as they are."""
    p_x, p_z = np.exp(target), np.exp(population)
    out = np.array([np.exp(references[~included[:, i], i]).mean() for i in range(len(target))])
    if mode == "online":
        inside = np.array([np.exp(references[included[:, i], i]).mean() for i in range(len(target))])
        marginal = (inside + out) / 2
    else:
        marginal = ((1 + a) * out + 1 - a) / 2
    marginal_z = ((1 + a) * np.exp(others).mean(axis=0) + 1 - a) / 2
    ratio = (p_x / marginal)[:, None] / (p_z / marginal_z)[None, :]
    return (ratio >= gamma).mean(axis=1)


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize(("gamma", "a"), [(1.0, 0.0), (2.0, 0.3), (1.5, 1.0)])
def test_is_the_loop_over_pairs(mode, gamma, a):
    *given, _ = draw(1)
    np.testing.assert_allclose(
        rmia.scores(*given, mode=mode, gamma=gamma, offline_a=a), pairwise(*given, mode, gamma, a), **EXACT
    )


def test_the_ratio_orders_as_the_scores_do():
    *given, _ = draw(2)
    scores, ratios = rmia.scores(*given, mode="online"), rmia.log_ratios(*given[:3], mode="online")
    assert np.all(np.diff(scores[np.argsort(ratios)]) >= 0)
    assert len(np.unique(ratios)) > len(np.unique(scores))


def test_exact_out_means_where_a_peer_fills_up_with_zeros():
    """Summing OUT probabilities over all R references, zeros for IN, and dividing by R, makes inclusion a signal."""
    target, references, included, *_, member = draw(3, records=40_000, leak=2.0)
    exact = rmia.log_ratios(target, references, included, mode="offline", offline_a=1.0)
    filled = target - np.log(np.where(included, 0.0, np.exp(references)).mean(axis=0))
    for row in range(0, 40_000, 4001):
        mine = target[row] - math.log(np.exp(references[~included[:, row], row]).mean())
        assert exact[row] == pytest.approx(mine)
    found, peers = (tpr_at_fpr(s[member], s[~member], 0.001).value for s in (exact, filled))
    assert found > 1.5 * peers


def test_inclusion_of_population_records_is_heeded():
    target, references, included, population, others, _ = draw(4)
    held = np.random.default_rng(5).random(others.shape) < 0.3
    spoilt = np.where(held, -1e-3, others)
    np.testing.assert_array_equal(
        rmia.scores(target, references, included, population, spoilt, held, mode="offline"),
        rmia.scores(target, references, included, population, np.where(held, -5.0, others), held, mode="offline"),
    )


def test_rows_without_a_side_are_refused_by_name():
    *given, _ = draw(6)
    all_in, all_out = given[2].copy(), given[2].copy()
    all_in[:, 11], all_out[:, 12] = True, False
    with pytest.raises(TooFewRecords, match="out of too few of 16 references, first record 11"):
        rmia.scores(given[0], given[1], all_in, *given[3:], mode="offline")
    with pytest.raises(TooFewRecords, match="in too few of 16 references, first record 12"):
        rmia.scores(given[0], given[1], all_out, *given[3:], mode="online")
    offline = rmia.scores(given[0], given[1], all_out, *given[3:], mode="offline", offline_a=1.0)
    ratio = given[0][12] - math.log(np.exp(given[1][:, 12]).mean())
    against = given[3] - np.log(np.exp(given[4]).mean(axis=0))
    assert offline[12] == pytest.approx(np.mean(ratio - math.log(2.0) >= against))


def test_no_probability_stays_finite_and_turned_right():
    target = np.array([0.0, LOG_ZERO, LOG_ZERO])
    references = np.array([[LOG_ZERO, LOG_ZERO, 0.0]] * 4)
    included = np.zeros((4, 3), dtype=bool)
    ratios = rmia.log_ratios(target, references, included, mode="offline", offline_a=1.0)
    assert np.all(np.isfinite(ratios))
    assert ratios[0] > ratios[1] > ratios[2]


def test_memory_stays_near_the_signals():
    *given, _ = draw(7, 256, 10_000)
    given = [np.float32(x) if x.dtype == np.float64 else x for x in given]
    tracemalloc.start()
    rmia.scores(*given, mode="online")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * given[1].nbytes


@pytest.mark.parametrize("place", [0, 1, 3, 4])
@pytest.mark.parametrize(("value", "error"), [(np.nan, NotFiniteScores), (0.5, BadProbabilities)])
def test_refuses_values(place, value, error):
    *given, _ = draw(8)
    given[place] = given[place].copy()
    given[place][..., 3] = value
    with pytest.raises(error):
        rmia.scores(*given, mode="online")


def test_refuses_settings_and_shapes():
    *given, _ = draw(9)
    for bad in ({"mode": "both"}, {"mode": "online", "gamma": 0.5}, {"mode": "offline", "offline_a": 1.5}):
        with pytest.raises(BadSetting):
            rmia.scores(*given, **bad)
    with pytest.raises(ShapeMismatch):
        rmia.scores(given[0][:-1], *given[1:], mode="online")
    with pytest.raises(ShapeMismatch):
        rmia.scores(*given, np.zeros((2, 2), dtype=bool), mode="online")
