"""DP-SGD's ε beside exact curves, a second integral, dp-accounting and formulas written down a second time."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from securekd.errors import BudgetError
from securekd.privacy import accountant
from securekd.privacy.accountant import (
    LEAST_NOISE_MULTIPLIER,
    UnprovableError,
    calibrate_dp_sgd,
    compose_epsilon,
    needs_no_noise,
)
from securekd.privacy.events import DpSgdEvent
from securekd.privacy.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from securekd.privacy.loss_distribution import TOLERANCE, loss_epsilon
from securekd.privacy.saddle_point import saddle_delta, saddle_epsilon
from securekd.privacy.sampled_gaussian import Pair, Steps
from tests.securekd.privacy import formulas


def epsilon(rate: float, noise: float, steps: int, delta: float, neighbours: str = "add_remove") -> float:
    event = DpSgdEvent(sampling_rate=rate, noise_multiplier=noise, steps=steps)
    return compose_epsilon([event], neighbours, delta)


@pytest.mark.parametrize(
    ("mu", "steps", "delta"),
    [
        (3.0, 200, 1e-13),
        (3.0, 200, 1e-15),
        (1.0, 1, 1e-5),
        (0.01, 10**6, 1e-6),
        (3.0, 10**7, 1e-15),
        (0.3, 10, 1e-3),
        (9.0, 50, 1e-30),
    ],
)
@pytest.mark.parametrize("direction", ["remove", "add", "replace"])
def test_with_every_example_in_every_step_it_is_just_above_the_exact_gaussian(
    mu: float, steps: int, delta: float, direction: str
) -> None:
    exact = gaussian_epsilon(mu * (2 if direction == "replace" else 1), delta)
    found = loss_epsilon([Steps(Pair(1.0, math.sqrt(steps) / mu, direction), steps)], delta)
    assert exact <= found <= 1.0005 * exact


def test_rounding_does_not_break_the_bound() -> None:
    # Gaussian curve at μ = 3, δ = 1e-13: 26.042. A plain Fourier transform of 200 steps reports 26.027.
    noise = math.sqrt(200) / 3
    assert epsilon(1.0, noise, 200, 1e-13) >= 26.042
    assert loss_epsilon([Steps(Pair(1.0, noise, "remove"), 200)], 1e-13) >= gaussian_epsilon(3.0, 1e-13)


def one_step(rate: float, noise: float, at: float, direction: str) -> float:
    """δ at ε of one step, in closed form: P and Q on the side of x where the loss is above ε."""
    if direction == "remove":
        x = noise**2 * math.log1p(math.expm1(at) / rate) + 0.5
        return rate * norm.sf((x - 1) / noise) - (math.expm1(at) + rate) * norm.sf(x / noise)
    inside = 1 + math.expm1(-at) / rate
    if inside <= 0:
        return 0.0
    x = noise**2 * math.log(inside) + 0.5
    mixture = (1 - rate) * norm.cdf(x / noise) + rate * norm.cdf((x - 1) / noise)
    return norm.cdf(x / noise) - math.exp(at) * mixture


@pytest.mark.parametrize(
    ("rate", "noise", "delta"),
    [
        (0.2, 0.9, 1e-5),
        (1e-5, 0.5, 1e-11),
        (1e-5, 0.94, 1e-15),
        (1e-5, 0.1, 1e-6),
        (0.5, 30.0, 1e-9),
        (0.999, 0.3, 1e-12),
        (1e-3, 2.0, 1e-7),
    ],
)
def test_one_step_is_just_above_its_closed_form(rate: float, noise: float, delta: float) -> None:
    for direction in ("remove", "add"):
        found = loss_epsilon([Steps(Pair(rate, noise, direction), 1)], delta)
        exact = 0.0
        if one_step(rate, noise, 1e-12, direction) > delta:
            exact = brentq(lambda e, d=direction: one_step(rate, noise, e, d) - delta, 1e-12, 200.0, xtol=1e-12)
        assert exact <= found
        if direction == "remove" and exact > 1e-3:
            # Noise smaller by 1% would not do.
            assert one_step(rate, noise * 0.99, found, direction) > delta


@pytest.mark.parametrize(
    "runs",
    [
        ((0.001, 1.0, 10),),
        ((0.1, 0.8, 3),),
        ((0.01, 0.6, 1000),),
        ((0.01, 1.0, 100), (0.1, 2.0, 50)),
        ((1.0, 5.0, 2), (0.02, 0.7, 30)),
    ],
)
def test_steps_of_several_kinds_lie_between_formulas_of_their_own(runs: tuple[tuple[float, float, int], ...]) -> None:
    events = [DpSgdEvent(sampling_rate=q, noise_multiplier=s, steps=n) for q, s, n in runs]
    low, high = formulas.subsampled_gaussian_bracket(runs, 1e-6)
    for neighbours in ("add_remove", "zero_out"):
        assert low - 1e-6 <= compose_epsilon(events, neighbours, 1e-6) <= high + 1e-3


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.01, 1.0, 500), (0.3, 4.0, 200), (0.001, 0.7, 3000)])
@pytest.mark.parametrize("neighbours", ["add_remove", "replace_one"])
def test_dp_accounting_reports_the_same(rate: float, noise: float, steps: int, neighbours: str) -> None:
    import dp_accounting as dpa
    from dp_accounting import pld

    relation = dpa.NeighboringRelation
    twin = pld.PLDAccountant(
        relation.REPLACE_ONE if neighbours == "replace_one" else relation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=1e-4,
    )
    twin.compose(dpa.PoissonSampledDpEvent(rate, dpa.GaussianDpEvent(noise)), steps)
    assert epsilon(rate, noise, steps, 1e-6, neighbours) == pytest.approx(twin.get_epsilon(1e-6), rel=2e-3)


@pytest.mark.parametrize("mu", [0.01, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 200, 10**7])
def test_the_reference_is_the_exact_gaussian_where_there_is_one(mu: float, steps: int) -> None:
    runs = [Steps(Pair(1.0, math.sqrt(steps) / mu, "remove"), steps)]
    for delta in (1e-4, 1e-9, 1e-15):
        exact = gaussian_epsilon(mu, delta)
        assert saddle_delta(runs, exact) == pytest.approx(gaussian_delta(exact, mu), rel=1e-5)
    assert saddle_epsilon(runs, 1e-9) == pytest.approx(gaussian_epsilon(mu, 1e-9), rel=1e-4)


@pytest.mark.parametrize(
    ("rate", "steps", "target", "delta", "smallest"),
    [
        (1e-3, 10**5, 0.3, 1e-5, 3.628),
        (1e-3, 10**6, 1.0, 1e-5, 3.797),
        (0.01, 10**5, 1.0, 1e-5, None),
        (1e-5, 10**5, 5.0, 1e-12, None),
    ],
)
def test_noise_is_no_larger_than_it_must_be(
    rate: float, steps: int, target: float, delta: float, smallest: float | None
) -> None:
    noise = calibrate_dp_sgd(rate, steps, target, delta, "add_remove")
    assert epsilon(rate, noise, steps, delta) <= target
    if smallest is not None:
        assert noise == pytest.approx(smallest, rel=1e-3)
    # A hundredth less noise costs more than ε by the reference, which is no upper bound.
    assert saddle_delta([Steps(Pair(rate, noise / 1.01, "remove"), steps)], target) > delta


@given(
    st.floats(-4, 0), st.floats(-0.5, 1.5), st.floats(0, 4), st.floats(-14, -4), st.sampled_from(["remove", "replace"])
)
@example(-3.0, 0.56, 5.0, -5.0, "remove")
@example(-4.0, -0.22, 5.0, -15.0, "remove")
@settings(max_examples=40)
def test_a_finer_grid_never_raises_epsilon(rate: float, noise: float, steps: float, delta: float, way: str) -> None:
    runs = [Steps(Pair(10**rate, 10**noise, way), round(10**steps))]
    coarse, usual, fine = (loss_epsilon(runs, 10**delta, t) for t in (1e-3, TOLERANCE, TOLERANCE / 16))
    assert fine <= 1.001 * usual + 1e-9
    assert usual <= 1.001 * coarse + 1e-9
    assert coarse <= 1.005 * fine + 1e-4


@pytest.mark.parametrize("delta", [1e-10, 1e-15, 1e-18, 1e-30, 1e-60])
@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.01, 1.0, 1000), (0.1, 20.0, 10**6), (0.5, 2.0, 40)])
def test_a_small_delta_is_no_disagreement(rate: float, noise: float, steps: int, delta: float) -> None:
    assert epsilon(rate, noise, steps, delta / 10) > epsilon(rate, noise, steps, delta) > 0


def test_an_epsilon_below_the_lower_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accountant, "loss_epsilon", lambda steps, delta: 1.0)
    with pytest.raises(UnprovableError, match="two accountants disagree"):
        epsilon(0.0123, 1.0, 1000, 1e-5)


@pytest.mark.parametrize(("rate", "steps", "delta"), [(1e-6, 5, 1e-5), (1e-9, 1000, 1.1e-6), (0.5, 1, 0.5)])
@pytest.mark.parametrize("neighbours", ["add_remove", "zero_out", "replace_one"])
def test_what_is_hardly_ever_sampled_needs_no_noise(rate: float, steps: int, delta: float, neighbours: str) -> None:
    assert needs_no_noise(rate, steps, delta)
    assert calibrate_dp_sgd(rate, steps, 0.01, delta, neighbours) == LEAST_NOISE_MULTIPLIER
    assert epsilon(rate, LEAST_NOISE_MULTIPLIER, steps, delta, neighbours) == 0
    assert not needs_no_noise(rate, 10 * steps, delta)


@pytest.mark.parametrize(("rate", "noise"), [(1.0, 1e-9), (0.5, 1e-9), (0.01, 1e-3), (1e-5, 0.02)])
def test_next_to_no_noise_has_a_large_epsilon_that_is_at_least_that_of_more(rate: float, noise: float) -> None:
    assert math.inf > epsilon(rate, noise, 10, 1e-6) > epsilon(rate, 0.1, 10, 1e-6)


def test_noise_is_found_up_to_a_million() -> None:
    assert 1e5 < calibrate_dp_sgd(0.9, 100, 1e-4, 1e-12, "add_remove") < 1e6
    with pytest.raises(BudgetError, match="raise privacy.epsilon"):
        calibrate_dp_sgd(0.9, 100, 1e-5, 1e-12, "add_remove")


@pytest.mark.parametrize("steps", [1000, 10**5])
def test_divergences_that_are_rounded_to_nothing_still_count(steps: int) -> None:
    """Each step is rounded to a divergence of 0, and all together were reported as ε = 1e-14 a step."""
    event = DpSgdEvent(sampling_rate=1e-5, noise_multiplier=1e5, steps=steps)
    lower = saddle_epsilon([Steps(Pair(1e-5, 1e5, "remove"), steps)], 1e-15)
    assert lower is None or compose_epsilon([event], "add_remove", 1e-15) >= lower
    assert compose_epsilon([event], "add_remove", 1e-15) > 1e-12 * steps
    assert gaussian_delta(1e-11, 1e-5 * math.sqrt(steps) / 1e5) > 1e-15


@pytest.mark.parametrize(("rate", "noise", "steps", "delta"), [(1e-6, 1.0, 1, 1e-7), (1e-10, 0.8, 1000, 1e-10)])
def test_rare_sampling_takes_no_memory(rate: float, noise: float, steps: int, delta: float) -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        assert epsilon(rate, noise, steps, delta) > 0
        assert tracemalloc.get_traced_memory()[1] < 500e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("neighbours", ["add_remove", "replace_one"])
@pytest.mark.parametrize("apart", [0.0, 2**-52, 1e-12, 1e-8])
def test_a_rate_next_to_one_counts_as_one(apart: float, neighbours: str) -> None:
    exact = gaussian_epsilon((2.0 if neighbours == "replace_one" else 1.0) / 0.24, 0.0107)
    assert exact < epsilon(1 - apart, 0.24, 1, 0.0107, neighbours) <= exact * (1 + 2e-5)


@pytest.mark.parametrize(("mu", "delta"), [(2.624723053082316e-5, 1e-6), (1.0, 1e-5), (30.0, 1e-12), (1e-4, 1e-5)])
def test_the_gaussian_curve_is_rounded_up_and_its_inverse_down(mu: float, delta: float) -> None:
    found = gaussian_epsilon(mu, delta)
    assert gaussian_delta(found, mu) <= delta
    assert gaussian_delta(found * (1 - 1e-6), mu) > delta
    assert gaussian_mu(found, delta) <= mu * (1 + 1e-7)
