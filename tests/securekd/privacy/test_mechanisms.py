"""The contract of release mechanisms, which each of them keeps."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from securekd.errors import RunError, SettingError
from securekd.privacy.mechanisms import Bounds, mechanism_named, refuse_unreachable, rounded, rounded_l2
from securekd.randomness import Csprng

NAMES = ("skellam", "discrete_gaussian", "gaussian")
BOUNDS = Bounds(l2=2.0, l1=280.0, entry=2.0, dimension=20_000)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def stream(key: int = 1) -> Csprng:
    return Csprng(bytes([key]) * 32)


def test_a_release_is_integers_within_the_magnitude(name: str) -> None:
    mechanism = mechanism_named(name, BOUNDS, sigma=0.5, step=2.0**-6)
    vector = np.zeros(20_000)
    vector[0], vector[1] = 1.4, -1.4
    released = mechanism.release(vector, stream())
    assert released.dtype == np.int64
    assert np.abs(released).max() <= mechanism.magnitude


def test_a_release_carries_vector_and_noise_without_bias(name: str) -> None:
    mechanism = mechanism_named(name, BOUNDS, sigma=0.5, step=2.0**-6)
    vector = np.full(20_000, 0.01)
    noise = mechanism.release(vector, stream()) * mechanism.step - vector
    # Five standard errors of mean and variance, fixed key; rounding adds at most step²/4 of variance.
    assert abs(noise.mean()) < 5 * 0.5 / math.sqrt(20_000)
    assert noise.var() == pytest.approx(0.25, abs=5 * 0.25 * math.sqrt(2 / 20_000) + 2.0**-14)


def test_a_release_repeats_on_one_stream_and_differs_on_another(name: str) -> None:
    mechanism = mechanism_named(name, BOUNDS, sigma=0.5)
    vector = np.full(20_000, 0.01)
    np.testing.assert_array_equal(mechanism.release(vector, stream()), mechanism.release(vector, stream()))
    assert (mechanism.release(vector, stream(1)) != mechanism.release(vector, stream(2))).mean() > 0.5


def test_without_noise_there_is_no_event_and_little_error(name: str) -> None:
    mechanism = mechanism_named(name, BOUNDS, sigma=0.0)
    assert mechanism.event(3) is None
    vector = np.full(20_000, 0.01)
    assert np.abs(mechanism.release(vector, stream()) * mechanism.step - vector).max() <= mechanism.step


def test_a_vector_that_is_longer_than_agreed_is_not_released(name: str) -> None:
    mechanism = mechanism_named(name, BOUNDS, sigma=0.5)
    long, pointed = np.full(20_000, 0.01401), np.zeros(20_000)
    pointed[0] = 2.001
    for bad in (np.full(20_000, 0.0142), long, pointed, np.zeros(7), np.full(20_000, np.nan)):
        with pytest.raises(RunError, match="not bounded"):
            mechanism.release(bad, stream())


def test_more_shares_give_a_better_event(name: str) -> None:
    from securekd.privacy.accountant import compose_epsilon

    mechanism = mechanism_named(name, BOUNDS, sigma=0.5)
    epsilons = [compose_epsilon([mechanism.event(shares)], "zero_out", 1e-5) for shares in (1, 4, 16, 64)]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[0] > 2 * epsilons[1]


def test_the_ring_is_proved_large_enough(name: str) -> None:
    mechanism = mechanism_named(name, BOUNDS, sigma=0.5, step=2.0**-6)
    refuse_unreachable(mechanism, 1000)
    most = (2**31 - 1) // mechanism.magnitude
    refuse_unreachable(mechanism, most)
    with pytest.raises(SettingError, match="raise release.step"):
        refuse_unreachable(mechanism, most + 1)


def test_integer_events_state_what_was_rounded() -> None:
    mechanism = mechanism_named("skellam", BOUNDS, sigma=0.5, step=2.0**-6)
    event = mechanism.event(5, factor=2.0)
    assert event.l2 == pytest.approx(2 * rounded_l2(BOUNDS, 2.0**-6))
    assert event.l2 <= event.l1 <= 2 * (280.0 * 64 + 20_000)
    assert (event.dimension, event.shares) == (20_000, 5)


def test_the_conditional_bound_is_the_published_one() -> None:
    # Kairouz, Liu and Steinke 2021, equation 7 at c/γ = 100, d = 400, β = e^(−1/2).
    assert rounded_l2(Bounds(1.0, 1.0, 1.0, 400), 0.01) == pytest.approx(
        min(math.sqrt(100**2 + 400 / 4 + 1.0 * (100 + 20 / 2)), 100 + 20)
    )
    assert rounded_l2(Bounds(1.0, 1.0, 1.0, 400, whole=True), 0.01) == 100


@given(st.integers(1, 60), st.floats(0.05, 30.0), st.integers(0, 2**32))
def test_rounding_keeps_its_bound_and_its_neighbours(dimension: int, norm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=dimension)
    vector *= norm / np.linalg.norm(vector)
    bounds = Bounds(norm, norm * math.sqrt(dimension), norm, dimension)
    limit = rounded_l2(bounds, 1.0)
    integers = rounded(vector, limit, whole=False, randomness=Csprng(rng.bytes(32)))
    assert np.linalg.norm(integers) <= limit
    assert (np.abs(integers - vector) < 1).all()


def test_rounding_is_close_to_unbiased() -> None:
    """Mean of 4,000 roundings of one vector: bias of the condition and five standard errors."""
    vector = np.array([0.3, -1.7, 2.5, 0.0])
    bounds = Bounds(float(np.linalg.norm(vector)), 4.5, 2.5, 4)
    limit, randomness = rounded_l2(bounds, 1.0), stream()
    mean = np.mean([rounded(vector, limit, whole=False, randomness=randomness) for _ in range(4000)], axis=0)
    assert np.abs(mean - vector).max() < 0.15


def test_votes_are_not_rounded_and_must_be_whole() -> None:
    bounds = Bounds(3.0, 3.0, 3.0, 2, whole=True)
    mechanism = mechanism_named("skellam", bounds, sigma=4.0)
    assert mechanism.step == 1.0
    with pytest.raises(RunError, match="whole"):
        mechanism.release(np.array([0.5, 1.0]), stream())


@given(st.floats(1e-3, 1e3), st.integers(1, 100_000), st.floats(1e-6, 1e4))
@example(1.0, 1, 1.0)
@example(1.0, 10, 1.0)
@example(1.0, 100, 1.0)
@example(1.0, 100_000, 10.0)
def test_the_fine_step_costs_next_to_nothing(l2: float, dimension: int, multiplier: float) -> None:
    bounds = Bounds(l2, l2 * math.sqrt(dimension), l2, dimension)
    mechanism = mechanism_named("skellam", bounds, sigma=multiplier * l2)
    inflated = rounded_l2(bounds, mechanism.step) * mechanism.step / l2
    assert inflated <= 1.001 or mechanism.sigma / mechanism.step > 2**13
    assert 8 * (1 - 1e-9) <= mechanism.sigma / mechanism.step <= 2**15


@pytest.mark.parametrize("sigma", [5e-324, 1e-300, 1e-12])
@pytest.mark.parametrize("dimension", [1, 1000])
def test_noise_that_is_too_small_to_be_drawn_is_refused_by_name(sigma: float, dimension: int) -> None:
    with pytest.raises(SettingError, match=f"release noise of {sigma:.3g} hides nothing"):
        mechanism_named("discrete_gaussian", Bounds(1.0, 32.0, 1.0, dimension), sigma=sigma)


@pytest.mark.parametrize("name", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("steps", [0.01, 0.03, 0.0519, 0.0521, 0.1])
def test_noise_of_a_small_part_of_a_step_is_released(name: str, steps: float) -> None:
    mechanism = mechanism_named(name, BOUNDS, sigma=steps * 2.0**-6, step=2.0**-6)
    vector = np.zeros(20_000)
    vector[0] = 1.4
    released = mechanism.release(vector, stream())
    assert np.abs(released).max() <= mechanism.magnitude
    assert abs(released[0] * 2.0**-6 - 1.4) <= 2.0**-5
