"""The cost of choosing the best run: against the library's accountant, formulas written out, and the drawn law."""

import math

import dp_accounting as dpa
import numpy as np
import pytest
from scipy.stats import geom

from securekd.privacy.events import DpSgdEvent
from securekd.sweep.choice import cost_of_choice
from securekd.sweep.selection import draw_number, selection_epsilon, success
from securekd.sweep.settings import Selection
from tests.securekd.sweep.conftest import begun, finished, proving

EVENTS = (DpSgdEvent(sampling_rate=0.1, noise_multiplier=2.0, steps=50),) * 2
DELTA = 1e-5


def curve(orders: np.ndarray) -> np.ndarray:
    accountant = dpa.rdp.RdpAccountant(orders=orders.tolist())
    accountant.compose(dpa.PoissonSampledDpEvent(0.1, dpa.GaussianDpEvent(2.0)), 100)
    return np.asarray(accountant.rdp)


@pytest.mark.parametrize("mean", [2.0, 10.0, 100.0])
def test_geometric_selection_is_theorem_two(mean: float) -> None:
    orders = np.array([1 + x / 10 for x in range(1, 100)] + list(range(11, 257)))
    rdp, gamma, eta = curve(orders), 1 / mean, 1.0
    least = np.min((1 - 1 / orders) * rdp + math.log(1 / gamma) / orders)
    chosen = rdp + (1 + eta) * least + math.log(mean) / (orders - 1)
    # Canonne, Kamath and Steinke 2020, proposition 12.
    bound = chosen + np.log1p(-1 / orders) - np.log(DELTA * orders) / (orders - 1)
    found = selection_epsilon(EVENTS, Selection(mean=mean, shape=1.0), DELTA, "add_remove")
    assert found == pytest.approx(float(bound.min()), rel=1e-3)


def test_choosing_costs_more_than_one_run_and_more_the_more_runs_are_expected() -> None:
    single = dpa.rdp.RdpAccountant()
    single.compose(dpa.PoissonSampledDpEvent(0.1, dpa.GaussianDpEvent(2.0)), 100)
    once = single.get_epsilon(DELTA)
    for law in ("negative_binomial", "poisson"):
        found = [selection_epsilon(EVENTS, Selection(law=law, mean=m), DELTA, "zero_out") for m in (2, 10, 100)]
        assert once < found[0] < found[1] < found[2] < 10 * once


def test_replace_one_has_no_bound() -> None:
    assert selection_epsilon(EVENTS, Selection(), DELTA, "replace_one") is None


@pytest.mark.parametrize(("shape", "mean"), [(0.0, 5.0), (0.5, 5.0), (1.0, 5.0), (3.0, 8.0)])
def test_the_drawn_number_has_the_mean_that_was_asked_for(shape: float, mean: float) -> None:
    selection = Selection(mean=mean, shape=shape)
    drawn = np.array([draw_number(selection, seed) for seed in range(4000)])
    assert drawn.min() >= 1
    assert abs(drawn.mean() - mean) < 4 * drawn.std() / math.sqrt(len(drawn))  # false alarm: 1 in 16,000, seeds fixed


def test_shape_one_is_the_geometric_law() -> None:
    assert success(7.0, 1.0) == pytest.approx(1 / 7)
    drawn = np.array([draw_number(Selection(mean=4.0), seed) for seed in range(4000)])
    for k in (1, 2, 5):
        expected = geom.pmf(k, 1 / 4)
        assert abs((drawn == k).mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def test_poisson_may_draw_no_run() -> None:
    drawn = [draw_number(Selection(law="poisson", mean=1.5), seed) for seed in range(400)]
    assert 0 in drawn
    assert abs(np.mean(drawn) - 1.5) < 4 * math.sqrt(1.5 / 400)


DRAWN = {
    "combine": "random", "seeds": [0], "baselines": [], "experiment": proving(),
    "axes": {"student.learning_rate": {"low": 1e-3, "high": 1e-2, "scale": "log"}},
}  # fmt: skip


@pytest.mark.slow
def test_a_sweep_with_a_drawn_number_states_the_cost_of_its_best_run(tmp_path) -> None:
    folder, plan = finished(tmp_path / "s", **DRAWN, selection={"mean": 1.5})
    assert plan.drawn.number == len(plan.runs) > 0
    assert [r.experiment for r in folder.plan().runs] == [r.experiment for r in plan.runs]  # and no other ones later
    choice = cost_of_choice(plan, folder)
    assert choice.looked == len(plan.runs)
    assert choice.epsilon > choice.single == pytest.approx(8.0, rel=1e-2)
    assert "nothing but the best run is released" in choice.why
    assert "costs" in folder.page.read_text()
    folder.note(plan.runs[0].key, None)
    (folder.run(plan.runs[0].key) / "result.json").unlink()
    assert cost_of_choice(plan, folder).epsilon is None


def test_without_a_drawn_number_there_is_no_bound(sweep) -> None:
    folder, plan = sweep
    choice = cost_of_choice(plan, folder)
    assert choice.epsilon is None
    assert choice.looked == 8
    assert "[selection]" in choice.why


def test_number_and_settings_of_the_runs_are_secret_randomness(tmp_path) -> None:
    plans = [begun(tmp_path / str(i), **DRAWN, selection={"mean": 50})[1] for i in range(6)]
    assert len({plan.drawn.number for plan in plans}) > 1  # six equal draws of this law: less than one in 10⁸
    assert len({plan.runs[0].experiment.student.learning_rate for plan in plans}) == 6


def test_a_setting_that_is_drawn_twice_is_run_twice(tmp_path) -> None:
    axes = {"student.epochs": [3]}
    plan = begun(tmp_path / "s", **DRAWN | {"axes": axes}, selection={"law": "poisson", "mean": 60})[1]
    assert len(plan.runs) == plan.drawn.number > 20  # Poisson(60): fewer than 21 in less than one of 10⁸
    assert {run.group for run in plan.runs} == {1}
