"""Which runs a sweep consists of."""

import numpy as np
import pytest

from securekd.sweep.plan import SweepPlan, plan_sweep
from securekd.sweep.settings import parse_sweep
from tests.securekd.sweep.conftest import SWEEP


def planned(**changes: object) -> SweepPlan:
    settings = parse_sweep(SWEEP | {"baselines": []} | changes)
    return plan_sweep(settings, dict(settings.experiment))


def test_a_grid_has_every_combination_with_every_seed() -> None:
    plan = planned(axes={"privacy.epsilon": [1, 2, 3], "aggregation": ["masking", "plain"]}, seeds=[4, 5])
    found = {(r.experiment.privacy.epsilon, r.experiment.aggregation, r.experiment.seed) for r in plan.runs}
    assert found == {(e, a, s) for e in (1.0, 2.0, 3.0) for a in ("masking", "plain") for s in (4, 5)}
    assert [r.key for r in plan.runs] == [f"run-{i:04}" for i in range(1, 13)]
    assert [r.seed for r in plan.runs] == [4] * 6 + [5] * 6
    assert [r.group for r in plan.runs] == [*range(1, 7)] * 2


def test_a_list_has_axes_side_by_side() -> None:
    plan = planned(combine="list", axes={"privacy.epsilon": [1, 2], "rounds": [3, 4]}, seeds=[0])
    assert [(r.experiment.privacy.epsilon, r.experiment.rounds) for r in plan.runs] == [(1.0, 3), (2.0, 4)]


def test_spans_are_even_on_their_scale() -> None:
    log = planned(axes={"privacy.epsilon": {"low": 1, "high": 8, "count": 4, "scale": "log"}}, seeds=[0])
    assert [r.experiment.privacy.epsilon for r in log.runs] == [1.0, 2.0, 4.0, 8.0]
    whole = planned(axes={"rounds": {"low": 1, "high": 3, "count": 3}}, seeds=[0])
    assert [r.experiment.rounds for r in whole.runs] == [1, 2, 3]


def test_random_draws_repeat_and_stay_within() -> None:
    axes = {"training.clip": {"low": 0.01, "high": 100, "scale": "log"}, "rounds": [1, 2]}
    once, again, other = (
        planned(combine="random", draws=200, axes=axes, seeds=[0], draw_seed=seed) for seed in (1, 1, 2)
    )
    clips = [r.experiment.training.clip for r in once.runs]
    assert clips == [r.experiment.training.clip for r in again.runs] != [r.experiment.training.clip for r in other.runs]
    assert 0.01 <= min(clips) < max(clips) <= 100
    assert {r.experiment.rounds for r in once.runs} == {1, 2}
    # Log-uniform: a quarter lies in each quarter of the exponents (200 draws; 25 is above six standard deviations).
    counts = np.histogram(np.log10(clips), bins=4, range=(-2, 2))[0]
    assert np.abs(counts - 50).max() <= 38


def test_a_random_axis_of_a_grid_is_drawn_once() -> None:
    axes = {"training.clip": {"low": 1, "high": 2, "count": 3, "draw": "random"}, "rounds": [1, 2]}
    plan = planned(axes=axes, seeds=[0])
    assert len({r.experiment.training.clip for r in plan.runs}) == 3
    assert len(plan.runs) == 6


def test_baselines_stand_beside_each_point_and_none_twice() -> None:
    plan = planned(baselines=["fedavg", "nonprivate"], seeds=[0])
    roles = [(r.role, r.experiment.strategy, r.experiment.privacy.epsilon) for r in plan.runs]
    # The fedavg baseline of a distilling point is the fedavg point itself, whichever comes first; without privacy, ε
    # makes no difference.
    assert len(plan.runs) == len({r.experiment.model_dump_json() for r in plan.runs}) == 6
    assert sorted(s for role, s, _ in roles if role == "nonprivate") == ["distil", "fedavg"]
    for run in plan.runs:
        if run.role == "nonprivate":
            assert not run.experiment.privacy.dp_sgd
            assert run.experiment.release.noise == run.experiment.fedavg.noise == 0
            assert run.experiment.privacy.client_epsilon is None


def test_the_fedavg_baseline_gives_every_client_the_students_model() -> None:
    mixed = SWEEP["experiment"] | {"clients": {"count": 4, "models": ["logistic", "mlp"]}}  # type: ignore[operator]
    plan = planned(baselines=["fedavg"], seeds=[0], axes={"privacy.epsilon": [3.0]}, experiment=mixed)
    point, beside = plan.runs
    assert (point.role, beside.role) == ("point", "fedavg")
    models = beside.experiment.client_models(4)
    assert {(m.kind, str(m.options)) for m in models} == {("mlp", "{'hidden': 8}")}
    assert beside.experiment.privacy == point.experiment.privacy


def test_a_sweep_of_one_point_has_no_axes() -> None:
    assert len(planned(axes={}, seeds=[0, 1]).runs) == 2


def test_too_many_combinations_are_refused() -> None:
    from securekd.errors import SettingError

    axes = {
        "training.clip": {"low": 1, "high": 2, "count": 1000},
        "privacy.epsilon": {"low": 1, "high": 2, "count": 1000},
    }
    with pytest.raises(SettingError, match="1,000,000 combinations"):
        planned(axes=axes)
