"""Soft labels, their bound, the noise on them, and what each view is charged."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from securekd.errors import BudgetError, SettingError
from securekd.knowledge import (
    SoftLabelShape,
    consensus_log_probabilities,
    log_softmax,
    mean_scores,
    soft_labels,
)
from securekd.privacy.accountant import compose_epsilon
from securekd.privacy.release import NoisePlan, calibrated_sigma, encoding, noised_integers, unknown_shares
from securekd.randomness import Csprng

LOGITS = arrays(np.float64, (5, 4), elements=st.floats(-1e6, 1e6))
ANY_LOGITS = arrays(np.float64, (5, 4), elements=st.floats(allow_nan=True, allow_infinity=True))


@given(
    ANY_LOGITS,
    st.sampled_from(["logits", "probabilities"]),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.sampled_from([None, 7, 100]),
)
def test_no_logits_break_the_bound(logits, scores, temperature, clip, cap) -> None:
    shape = SoftLabelShape(5, 4, clip, cap)
    made = soft_labels(logits, shape, scores=scores, temperature=temperature, examples=50)
    assert made.vector.shape == (shape.length,)
    assert np.isfinite(made.vector).all()
    assert np.linalg.norm(made.vector) <= shape.sensitivity
    assert (np.linalg.norm(made.vector[:20].reshape(5, 4), axis=1) <= clip).all()


def test_rows_that_are_not_finite_become_zeros_and_are_counted() -> None:
    logits = np.array([[1.0, 2.0], [np.nan, 0.0], [np.inf, 1.0]])
    made = soft_labels(logits, SoftLabelShape(3, 2, 9.0), scores="logits", temperature=1.0, examples=1)
    assert made.zeroed_rows == 2
    np.testing.assert_allclose(made.vector.reshape(3, 2), [[-0.5, 0.5], [0, 0], [0, 0]])


@given(LOGITS)
def test_small_logits_are_centred_and_not_clipped(logits) -> None:
    z = logits / 1e6
    made = soft_labels(z, SoftLabelShape(5, 4, 5.0), scores="logits", temperature=1.0, examples=1)
    np.testing.assert_allclose(made.vector.reshape(5, 4), z - z.mean(1, keepdims=True), atol=1e-9)
    assert made.clipped_rows == 0


def test_weighted_sum_gives_the_weighted_mean() -> None:
    shape = SoftLabelShape(2, 3, 5.0, weight_cap=100)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 2, 3))
    sizes = [10, 50, 400]  # the last is capped to 100
    parts = [
        soft_labels(z, shape, scores="logits", temperature=1.0, examples=n) for z, n in zip(logits, sizes, strict=True)
    ]
    mean = mean_scores(np.sum([p.vector for p in parts], axis=0), shape, survivors=3)
    expected = np.average(logits - logits.mean(2, keepdims=True), axis=0, weights=[10, 50, 100])
    np.testing.assert_allclose(mean, expected, atol=1e-9)


def test_a_clients_weight_alone_cannot_exceed_the_sensitivity() -> None:
    shape = SoftLabelShape(2, 3, 2.0, weight_cap=10)
    made = soft_labels(np.full((2, 3), [9.0, -9.0, 0.0]), shape, scores="logits", temperature=1.0, examples=10_000)
    assert np.linalg.norm(made.vector) == pytest.approx(shape.sensitivity)


@given(LOGITS, st.floats(0.5, 6))
def test_consensus_is_a_distribution(mean, sharpness) -> None:
    for scores in ("logits", "probabilities"):
        log_probs = consensus_log_probabilities(mean / 1e6, scores=scores, sharpness=sharpness)
        np.testing.assert_allclose(np.exp(log_probs).sum(1), 1.0)


def test_entropy_reduction_sharpens_and_keeps_the_order() -> None:
    mean = np.array([[0.3, 0.0, -0.3]])
    plain, sharp = (np.exp(consensus_log_probabilities(mean, scores="probabilities", sharpness=s)) for s in (1.0, 4.0))
    np.testing.assert_allclose(plain, mean + 1 / 3)
    assert sharp[0, 0] > plain[0, 0]
    assert (np.argsort(sharp) == np.argsort(plain)).all()


@pytest.mark.parametrize(
    ("sums_only", "threshold", "colluders", "expected"),
    [
        (True, 6, 1, {"server": 5, "clients": 5, "public": 6}),
        (True, 6, 0, {"server": 6, "clients": 5, "public": 6}),
        (True, 3, 3, {"server": 0, "clients": 0, "public": 3}),
        (False, 6, 1, {"server": 1, "clients": 5, "public": 6}),
    ],
)
def test_each_view_is_credited_only_with_noise_that_it_does_not_know(sums_only, threshold, colluders, expected) -> None:
    assert unknown_shares(sums_only=sums_only, threshold=threshold, colluders=colluders) == expected


def test_events_carry_the_noise_of_the_fewest_honest_survivors() -> None:
    plan = NoisePlan(sensitivity=4.0, sigma=2.0, unknown_shares={"server": 9, "public": 0})
    server, public = plan.entries("a", 1)
    assert server.event.noise_multiplier == pytest.approx(2.0 * 3 / 4.0)
    assert server.neighbours == "zero_out"
    assert public.event.kind == "unprotected"
    assert NoisePlan(4.0, 0.0, {"server": 9}).entries("a", 1)[0].event.kind == "unprotected"


@pytest.mark.parametrize("rounds", [1, 3])
def test_calibrated_noise_meets_the_target(rounds: int) -> None:
    sigma = calibrated_sigma(epsilon=2.0, delta=1e-5, sensitivity=7.0, rounds=rounds, shares=4)
    plan = NoisePlan(7.0, sigma, {"server": 4})
    events = [plan.entries("a", r)[0].event for r in range(1, rounds + 1)]
    assert compose_epsilon(events, "zero_out", 1e-5) == pytest.approx(2.0, rel=1e-6)


def test_calibration_needs_an_honest_survivor() -> None:
    with pytest.raises(BudgetError, match="collude"):
        calibrated_sigma(epsilon=2.0, delta=1e-5, sensitivity=7.0, rounds=1, shares=0)


def test_integers_carry_value_and_noise_without_bias() -> None:
    grid = encoding(clip=2.0, sigma=0.5, step=0.25, clients=10)
    vector = np.full(200_000, 0.3)
    decoded = grid.decode(noised_integers(vector, sigma=0.5, grid=grid, randomness=Csprng(b"\x05" * 32)))
    # Variance: the noise's, and the rounding's (at most step²/4); five standard errors, fixed seed.
    assert abs(decoded.mean() - 0.3) < 5 * math.sqrt((0.25 + 0.25**2 / 4) / 200_000)
    assert 0.25 < decoded.var() < 0.25 + 0.25**2 / 4 + 0.01


def test_without_noise_integers_are_within_a_step() -> None:
    grid = encoding(clip=2.0, sigma=0.0, step=0.01, clients=10)
    vector = np.random.default_rng(0).uniform(-2, 2, 1000)
    assert (
        np.abs(grid.decode(noised_integers(vector, sigma=0.0, grid=grid, randomness=Csprng(bytes(32)))) - vector).max()
        <= 0.01
    )


def test_the_ring_is_proved_large_enough() -> None:
    assert encoding(clip=2.0, sigma=1.0, step=2.0**-12, clients=100).magnitude * 100 < 2**31
    with pytest.raises(SettingError, match="raise release.step"):
        encoding(clip=2.0, sigma=1e4, step=2.0**-12, clients=100)


def test_log_softmax_stands_large_values() -> None:
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4, 0.0]]))).all()
