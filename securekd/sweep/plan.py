"""From a sweep file to the list of its runs: every point of the axes, with every seed, and the baselines beside it."""

import itertools
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from securekd.errors import SettingError
from securekd.settings.config import Tree, parse_experiment, put, quoted
from securekd.settings.experiment import Experiment
from securekd.sweep.selection import draw_number
from securekd.sweep.settings import MOST_RUNS, Axis, Span, SweepSettings, merged

Role = Literal["point", "fedavg", "nonprivate"]

Point = dict[str, Any]


class Drawn(BaseModel):
    """What was drawn where the best run shall have a bound: both stay secret, and a later call draws neither again.

    Attributes:
        number: of runs.
        seed: from which each run's settings are drawn; the runs are independent of each other for that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    seed: int  # of 128 bits, and no setting


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run.

    Attributes:
        key: its number as a word, which names its folder.
        role: a point of the axes, or a baseline beside one.
        point: value of each axis.
        group: number of the point and role, which runs with other seeds share.
        seed: of the run.
        experiment: complete.
    """

    key: str
    role: Role
    point: Point
    group: int
    seed: int
    experiment: Experiment


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """A sweep, settled.

    Attributes:
        settings: what was asked for.
        runs: in the order in which they are carried out: seed by seed.
        drawn: what was drawn for `settings.selection`; None without it.
    """

    settings: SweepSettings
    runs: tuple[PlannedRun, ...]
    drawn: Drawn | None

    @property
    def axes(self) -> tuple[str, ...]:
        """The settings in which runs differ, baselines and seeds aside."""
        return tuple(self.settings.axes)


def plan_sweep(settings: SweepSettings, tree: Tree, drawn: Drawn | None = None) -> SweepPlan:
    """Every run of a sweep, each validated; none is carried out.

    Args:
        settings: of the sweep.
        tree: settings that every run starts from.
        drawn: by an earlier call; None draws it, if there is anything to draw.

    Raises:
        SettingError: for a value that its setting does not allow.
    """
    if settings.selection is not None and drawn is None:
        drawn = Drawn(number=draw_number(settings.selection, secrets.randbits(128)), seed=secrets.randbits(128))
    points = list(_points(settings, drawn))
    runs: list[PlannedRun] = []
    known: set[str] = set()
    groups: dict[str, int] = {}
    for seed in settings.seeds:
        for point in points:
            for role, experiment in _roles(settings, tree, point, seed):
                same = experiment.model_dump_json()
                if same in known and drawn is None:  # a repeated draw is a run of its own
                    continue
                known.add(same)
                alike = experiment.model_copy(update={"seed": 0}).model_dump_json()
                group = groups.setdefault(alike, len(groups) + 1)
                runs.append(PlannedRun(f"run-{len(runs) + 1:04}", role, point, group, seed, experiment))
    return SweepPlan(settings, tuple(runs), drawn)


def _roles(settings: SweepSettings, tree: Tree, point: Point, seed: int) -> Iterator[tuple[Role, Experiment]]:
    changed = merged(tree, {"seed": seed})
    for key, value in point.items():
        put(changed, key, value, f"the axis {key!r}")
    changed = merged({"runtime": {"workers": 1}}, changed)  # runs are side by side, and each has one process
    experiment = _parsed(changed, point)
    yield "point", experiment
    if "fedavg" in settings.baselines:
        yield "fedavg", _parsed(_averaged(changed, experiment), point)
    if "nonprivate" in settings.baselines:
        yield "nonprivate", _parsed(_nonprivate(changed), point)


def _parsed(tree: Tree, point: Point) -> Experiment:
    try:
        return parse_experiment(tree)
    except SettingError as error:
        where = ", ".join(f"{key} = {quoted(value)}" for key, value in point.items())
        raise SettingError(f"{error} (at {where})" if where else str(error)) from error


def _averaged(tree: Tree, experiment: Experiment) -> Tree:
    """The same with federated averaging: the same privacy, and everybody has the student's model."""
    model = experiment.student.model.model_dump(mode="json")
    alike = merged(tree, {"strategy": "fedavg"})
    alike["clients"] = {"count": experiment.client_count(), "models": [model]}
    if alike["clients"]["count"] is None:
        del alike["clients"]["count"]
    alike.get("release", {}).pop("rows", None)
    alike.get("student", {}).pop("denoise", None)
    return alike


def _nonprivate(tree: Tree) -> Tree:
    """The same without DP-SGD and without release noise."""
    bare = merged(tree, {"privacy": {"dp_sgd": False}, "release": {"noise": 0.0}, "fedavg": {"noise": 0.0}})
    for key in ("epsilon", "client_epsilon"):
        bare["privacy"].pop(key, None)
    return bare


def _points(settings: SweepSettings, drawn: Drawn | None) -> Iterator[Point]:
    names = list(settings.axes)
    if settings.combine == "random":
        rng = np.random.default_rng(settings.draw_seed if drawn is None else drawn.seed)
        for _ in range((settings.draws or 0) if drawn is None else drawn.number):
            yield {name: _drawn(axis, rng) for name, axis in settings.axes.items()}
        return
    values = [
        _values(axis, np.random.default_rng([settings.draw_seed, i])) for i, axis in enumerate(settings.axes.values())
    ]
    if settings.combine == "list":
        if len({len(v) for v in values}) > 1:
            lengths = ", ".join(f"{name} has {len(v)}" for name, v in zip(names, values, strict=True))
            raise SettingError(f"combine = 'list' takes axes side by side, and {lengths}; make them equally long")
        for row in zip(*values, strict=True):
            yield dict(zip(names, row, strict=True))
        return
    count = int(np.prod([len(v) for v in values], dtype=float))
    if count * len(settings.seeds) > MOST_RUNS:
        raise SettingError(f"the axes have {count:,} combinations; take values out, or combine = 'random'")
    for row in itertools.product(*values):
        yield dict(zip(names, row, strict=True))


def _values(axis: Axis, rng: np.random.Generator) -> list[Any]:
    """The values of an axis, in order."""
    if isinstance(axis, tuple):
        return list(axis)
    count = axis.count or 1
    if axis.draw == "random":
        return sorted(_drawn(axis, rng) for _ in range(count))
    spaced = np.geomspace if axis.scale == "log" else np.linspace
    return [_number(value) for value in spaced(axis.low, axis.high, count).tolist()]


def _drawn(axis: Axis, rng: np.random.Generator) -> Any:
    if isinstance(axis, tuple):
        return axis[int(rng.integers(len(axis)))]
    return _number(_between(axis, float(rng.random())))


def _between(span: Span, share: float) -> float:
    if span.scale == "log":
        return float(span.low * (span.high / span.low) ** share)
    return span.low + (span.high - span.low) * share


def _number(value: float) -> float | int:
    """Six digits are enough for a setting, and whole numbers stay whole, as integer settings need."""
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def describe(point: Point) -> str:
    """A point in one line, as TOML would have it."""
    return ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in point.items()) or "the base"
