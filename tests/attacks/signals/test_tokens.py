"""Signals of texts, by hand and at the edges of the input."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd_attacks import BadProbabilities, BadSetting, ShapeMismatch, TooFewRecords, signals

TOKENS = np.log(np.array([0.5, 0.1, 0.9, 0.2, 0.05]))
token_lists = st.lists(st.one_of(st.floats(-800, 0), st.just(-math.inf)), min_size=1, max_size=60)


def everything(tokens, k=0.2):
    moments = np.full(len(tokens), -1.0), np.full(len(tokens), 0.5)
    return [
        signals.mean_loss(tokens),
        signals.min_k(tokens, k),
        signals.min_k_plus_plus(tokens, *moments, k),
        signals.zlib_ratio(tokens, "to be"),
    ]


def test_by_hand():
    assert signals.mean_loss(TOKENS) == pytest.approx(-TOKENS.mean())
    assert signals.min_k(TOKENS, 0.2) == pytest.approx(math.log(0.05))
    assert signals.min_k(TOKENS, 0.4) == pytest.approx((math.log(0.05) + math.log(0.1)) / 2)
    assert signals.min_k(TOKENS, 1.0) == pytest.approx(TOKENS.mean())
    text = "to be or not to be"
    assert signals.zlib_ratio(TOKENS, text) == pytest.approx(-TOKENS.mean() / len(zlib.compress(text.encode())))
    normalised = (TOKENS - [-1, -2, -1, -1, -3]) / [0.5, 1, 0.5, 0.5, 2]
    least_two = np.sort(normalised)[:2].mean()
    assert signals.min_k_plus_plus(TOKENS, [-1, -2, -1, -1, -3], [0.5, 1, 0.5, 0.5, 2], 0.4) == pytest.approx(least_two)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_texts_have_figures(length):
    """A peer gives NaN where k of the tokens is less than one."""
    assert signals.min_k(TOKENS[:length], 0.2) == pytest.approx(TOKENS[:length].min())
    assert np.all(np.isfinite(everything(TOKENS[:length], 0.01)))


def test_fraction_takes_the_whole_number_meant():
    tokens = -np.arange(100.0)
    assert signals.min_k(tokens, 0.29) == pytest.approx(-np.arange(71, 100).mean())


@given(token_lists, st.floats(1e-6, 1.0))
def test_finite_also_where_a_token_has_no_probability(tokens, k):
    values = np.array(everything(np.array(tokens), k))
    assert np.all(np.isfinite(values))
    assert values[1] <= -values[0] + 1e-9


def test_a_prediction_without_spread_is_no_division_by_zero():
    assert math.isfinite(signals.min_k_plus_plus([0.0, -math.inf], [0.0, 0.0], [0.0, 0.0], 0.5))


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ([0.1], BadProbabilities),
        ([-1.0, math.nan], BadProbabilities),
        ([math.inf], BadProbabilities),
        ([1, 2], BadProbabilities),
        ([], TooFewRecords),
        ([[-1.0]], ShapeMismatch),
    ],
)
def test_refuses(tokens, error):
    tokens = np.array(tokens)
    for call in (
        lambda: signals.mean_loss(tokens),
        lambda: signals.min_k(tokens, 0.2),
        lambda: signals.min_k_plus_plus(tokens, tokens, tokens, 0.2),
        lambda: signals.zlib_ratio(tokens, ""),
    ):
        with pytest.raises(error):
            call()


@pytest.mark.parametrize("k", [0.0, 1.1, -1.0, math.nan])
def test_refuses_fractions_out_of_range(k):
    with pytest.raises(BadSetting):
        signals.min_k(TOKENS, k)


@pytest.mark.parametrize(
    ("means", "deviations", "error"),
    [
        ([-1.0], [1.0, 1.0], ShapeMismatch),
        ([-1.0, 1.0], [1.0, 1.0], BadProbabilities),
        ([-1.0, -1.0], [1.0, -1.0], BadProbabilities),
        ([-1.0, math.nan], [1.0, 1.0], BadProbabilities),
        ([-1.0, -1.0], [1.0, math.inf], BadProbabilities),
    ],
)
def test_refuses_moments_that_are_none(means, deviations, error):
    with pytest.raises(error):
        signals.min_k_plus_plus([-1.0, -1.0], means, deviations, 0.5)
