"""Bounded scores, who is credited with whose noise, and noise that meets a target."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from securekd.errors import BudgetError, RunError
from securekd.knowledge.soft_labels import Clip, SoftLabelShape, consensus_log_probabilities, soft_labels
from securekd.numerics import log_softmax
from securekd.privacy.accountant import compose_epsilon
from securekd.privacy.mechanisms import Bounds, mechanism_named
from securekd.privacy.release import Exposure, ReleasePlan, calibrated, unknown_shares

LOGITS = arrays(np.float64, (5, 4), elements=st.floats(-1e6, 1e6))
ANY_LOGITS = arrays(np.float64, (5, 4), elements=st.floats(allow_nan=True, allow_infinity=True))
ORDERS = {"l2": 2, "l1": 1, "linf": np.inf}


def shape(rows: int, classes: int, clip: float, scores="logits", norm="l2", unit="row", cap=None) -> SoftLabelShape:
    return SoftLabelShape(rows, classes, scores, Clip(clip, norm, unit), cap)


@given(
    ANY_LOGITS,
    st.sampled_from(["logits", "probabilities", "votes", "top_k"]),
    st.sampled_from(["l2", "l1", "linf"]),
    st.sampled_from(["row", "matrix"]),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.sampled_from([None, 7, 100]),
)
def test_no_logits_break_any_bound(logits, scores, norm, unit, temperature, clip, cap) -> None:
    cap = None if scores == "votes" else cap
    asked = shape(5, 4, clip, scores, norm, unit, cap)
    made = soft_labels(logits, asked, temperature=temperature, examples=50, top_k=2)
    assert made.vector.shape == (asked.length,)
    assert np.isfinite(made.vector).all()
    bounds = asked.bounds
    assert np.linalg.norm(made.vector) <= bounds.l2 * (1 + 1e-15)
    assert np.abs(made.vector).sum() <= bounds.l1 * (1 + 1e-12)
    assert np.abs(made.vector).max() <= bounds.entry
    assert bounds.dimension == asked.length
    if unit == "row" and scores != "votes":
        assert (np.linalg.norm(made.vector[:20].reshape(5, 4), ord=ORDERS[norm], axis=1) <= clip).all()


def test_one_hot_votes_are_whole_and_have_the_norm_that_is_charged() -> None:
    asked = shape(3, 4, 1.0, "votes")
    made = soft_labels(np.array([[0, 9, 1, 2], [5, 0, 0, 0], [0, 0, 0, 1.0]]), asked, temperature=1.0, examples=1)
    np.testing.assert_array_equal(made.vector.reshape(3, 4), [[-1, 3, -1, -1], [3, -1, -1, -1], [-1, -1, -1, 3]])
    assert np.linalg.norm(made.vector) == pytest.approx(asked.bounds.l2)
    assert np.abs(made.vector).sum() == pytest.approx(asked.bounds.l1)
    # A mean of votes is the share of each class, centred.
    np.testing.assert_allclose(asked.mean(made.vector, 1) + 0.25, np.eye(4)[[1, 0, 3]])


def test_top_k_keeps_the_largest_soft_labels() -> None:
    made = soft_labels(np.log([[0.5, 0.3, 0.15, 0.05]]), shape(1, 4, 9.0, "top_k"), temperature=1, examples=1, top_k=2)
    np.testing.assert_allclose(made.vector, np.array([0.5, 0.3, 0, 0]) - 0.2)


def test_a_whole_matrix_may_spend_its_bound_on_a_few_rows() -> None:
    logits = np.zeros((4, 2))
    logits[0] = [3.0, -3.0]
    by_matrix = soft_labels(logits, shape(4, 2, 2.0, unit="matrix"), temperature=1.0, examples=1)
    np.testing.assert_allclose(np.linalg.norm(by_matrix.vector), 4.0)  # 2·√4, and the row's own norm is 4.24
    assert soft_labels(logits, shape(4, 2, 2.0), temperature=1.0, examples=1).clipped == 1


def test_rows_that_are_not_finite_become_zeros_and_are_counted_or_are_refused() -> None:
    logits = np.array([[1.0, 2.0], [np.nan, 0.0], [np.inf, 1.0]])
    made = soft_labels(logits, shape(3, 2, 9.0), temperature=1.0, examples=1)
    assert made.zeroed == 2
    np.testing.assert_allclose(made.vector.reshape(3, 2), [[-0.5, 0.5], [0, 0], [0, 0]])
    with pytest.raises(RunError, match="2 of 3 transfer rows"):
        soft_labels(logits, shape(3, 2, 9.0), temperature=1.0, examples=1, nonfinite="refuse")


@given(LOGITS)
def test_small_logits_are_centred_and_not_clipped(logits) -> None:
    z = logits / 1e6
    made = soft_labels(z, shape(5, 4, 5.0), temperature=1.0, examples=1)
    np.testing.assert_allclose(made.vector.reshape(5, 4), z - z.mean(1, keepdims=True), atol=1e-9)
    assert made.clipped == 0


def test_weighted_sum_gives_the_weighted_mean() -> None:
    asked = shape(2, 3, 5.0, cap=100)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 2, 3))
    sizes = [10, 50, 400]  # the last is capped to 100
    parts = [soft_labels(z, asked, temperature=1.0, examples=n) for z, n in zip(logits, sizes, strict=True)]
    mean = asked.mean(np.sum([p.vector for p in parts], axis=0), survivors=3)
    expected = np.average(logits - logits.mean(2, keepdims=True), axis=0, weights=[10, 50, 100])
    np.testing.assert_allclose(mean, expected, atol=1e-9)


def test_a_clients_weight_alone_cannot_exceed_the_sensitivity() -> None:
    asked = shape(2, 3, 2.0, cap=10)
    made = soft_labels(np.full((2, 3), [9.0, -9.0, 0.0]), asked, temperature=1.0, examples=10_000)
    assert np.linalg.norm(made.vector) == pytest.approx(asked.bounds.l2)


@given(LOGITS, st.floats(0.5, 6))
def test_consensus_is_a_distribution(mean, sharpness) -> None:
    for scores in ("logits", "probabilities", "votes"):
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
        (True, 6, 1, {"server": 5, "clients": 5, "public": 5}),
        (True, 6, 0, {"server": 6, "clients": 5, "public": 6}),
        (True, 26, 4, {"server": 22, "clients": 22, "public": 22}),
        (True, 3, 3, {"server": 0, "clients": 0, "public": 0}),
        (False, 6, 1, {"server": 1, "clients": 5, "public": 5}),
        (False, 2, 3, {"server": 1, "clients": 0, "public": 0}),
    ],
)
def test_each_view_is_credited_with_the_noise_of_honest_clients_that_it_does_not_know(
    sums_only, threshold, colluders, expected
) -> None:
    assert unknown_shares(sums_only=sums_only, threshold=threshold, colluders=colluders) == expected


def plan(name: str, sigma: float, shares: dict[str, int], neighbours: str = "zero_out") -> ReleasePlan:
    mechanism = mechanism_named(name, Bounds(4.0, 8.0, 4.0, 16), sigma=sigma, step=2.0**-8)
    return ReleasePlan(mechanism, Exposure(neighbours, shares))


def test_events_carry_the_noise_of_the_fewest_honest_survivors() -> None:
    server, public = plan("gaussian", 2.0, {"server": 9, "public": 0}).entries("a", 1, "0" * 64)
    assert server.event.noise_multiplier == pytest.approx(2.0 * 3 / 4.0)
    assert (server.neighbours, server.transfer) == ("zero_out", "0" * 64)
    assert public.event.kind == "unprotected"
    assert plan("skellam", 0.0, {"server": 9}).entries("a", 1)[0].event.kind == "unprotected"
    integer = plan("skellam", 2.0, {"server": 9}).entries("a", 1)[0].event
    assert (integer.kind, integer.shares, integer.sigma) == ("skellam", 9, 512.0)


def test_replace_one_doubles_the_sensitivity() -> None:
    for name in ("gaussian", "skellam"):
        near, far = (plan(name, 2.0, {"server": 9}, n).entries("a", 1)[0].event for n in ("zero_out", "replace_one"))
        if name == "gaussian":
            assert far.noise_multiplier == pytest.approx(near.noise_multiplier / 2)
        else:
            assert far.l2 == pytest.approx(2 * near.l2)
            assert near.l1 < far.l1 <= 2 * near.l1


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian", "gaussian"])
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("epsilon", [0.3, 2.0])
def test_calibrated_noise_meets_the_target_and_wastes_little(name: str, rounds: int, epsilon: float) -> None:
    bounds = Bounds(7.0, 30.0, 2.0, 50)
    exposure = Exposure("zero_out", {"server": 4})

    def mechanisms(multiplier: float):
        return [mechanism_named(name, bounds, sigma=multiplier * 7.0)]

    found = calibrated(mechanisms, exposure, lowest=1e-3, epsilon=epsilon, delta=1e-5, rounds=rounds)
    events = [mechanisms(found)[0].event(4)] * rounds
    assert 0.999 * epsilon < compose_epsilon(events, "zero_out", 1e-5) <= epsilon


def test_calibration_needs_an_honest_survivor() -> None:
    with pytest.raises(BudgetError, match="collude"):
        calibrated(lambda z: [], Exposure("zero_out", {"server": 0}), lowest=0.1, epsilon=2.0, delta=1e-5, rounds=1)


def test_log_softmax_stands_large_values() -> None:
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4, 0.0]]))).all()
    assert math.isclose(float(np.exp(log_softmax(np.array([[0.0, 0.0]])))[0, 0]), 0.5)
