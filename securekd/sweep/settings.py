"""What a sweep file says: a base experiment, the axes along which runs differ, seeds, baselines, selection."""

import copy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from securekd.errors import SettingError
from securekd.settings.config import Tree, all_settings, explain, nearest, read_toml
from securekd.settings.table import Settings

Baseline = Literal["fedavg", "nonprivate"]

# What these settings are decides what a run costs in privacy; where the best of several runs is picked they are fixed.
COSTLY = ("privacy", "data", "rounds", "clients", "training.epochs", "training.sampling_rate", "cohort", "seed")

# More runs than this are a slip of the pen.
MOST_RUNS = 100_000


class Span(Settings):
    """Values between two ends."""

    low: float = Field(description="the smallest value")
    high: float = Field(description="the largest value")
    count: int | None = Field(
        None, ge=1, le=MOST_RUNS, description="how many values; unset only where combine = 'random'"
    )
    scale: Literal["linear", "log"] = Field("linear", description="log: equal ratios between values")
    draw: Literal["even", "random"] = Field("even", description="random: drawn from the sweep's draw_seed")

    @model_validator(mode="after")
    def _ordered(self) -> "Span":
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError("a log scale needs low > 0")
        return self


def _span_or_list(value: object) -> str:
    return "span" if isinstance(value, dict | Span) else "list"


Axis = Annotated[Annotated[Span, Tag("span")] | Annotated[tuple[Any, ...], Tag("list")], Discriminator(_span_or_list)]


class Selection(Settings):
    """The law that the number of runs is drawn from, which bounds releasing the best (Papernot and Steinke 2022)."""

    law: Literal["negative_binomial", "poisson"] = Field(
        "negative_binomial", description="truncated negative binomial, or Poisson"
    )
    mean: float = Field(10.0, gt=1, le=10_000, description="runs to be expected")
    shape: float = Field(1.0, ge=0, le=1e6, description="η of the negative binomial: 1 geometric, 0 logarithmic")


class SweepSettings(Settings):
    """A sweep file."""

    base: str | None = Field(None, description="a TOML file of settings, beside the sweep's; unset: the defaults")
    experiment: dict[str, Any] = Field(default_factory=dict, description="settings on top of the base")
    axes: dict[str, Axis] = Field(default_factory=dict, description="by setting: a list of values, or a span")
    combine: Literal["grid", "list", "random"] = Field(
        "grid", description="every combination, the axes' values side by side, or draws from each axis"
    )
    draws: int | None = Field(None, ge=1, le=MOST_RUNS, description="points that are drawn (combine = 'random')")
    draw_seed: int = Field(0, ge=0, description="of everything that is drawn, but for the number of runs")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds with which each point is run")
    baselines: tuple[Baseline, ...] = Field(
        (), description="runs beside each point: fedavg (same privacy), nonprivate (same without any)"
    )
    selection: Selection | None = Field(None, description="draws the number of points, so that the best has a bound")

    @model_validator(mode="after")
    def _consistent(self) -> "SweepSettings":
        for key, axis in self.axes.items():
            if isinstance(axis, tuple) and not axis:
                raise ValueError(f"the axis {key!r} is empty; give it values, or take it out")
            if isinstance(axis, Span) and axis.count is None and self.combine != "random":
                raise ValueError(f"the axis {key!r} needs a count, unless combine = 'random'")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} repeats one")
        if (self.combine == "random") != (self.draws is not None or self.selection is not None):
            raise ValueError("draws (or selection) goes with combine = 'random', and only with it")
        if self.selection is not None:
            self._refuse_costly()
        return self

    def _refuse_costly(self) -> None:
        if self.draws is not None or self.draw_seed:
            raise ValueError("selection draws points and their number in secret; take draws and draw_seed out")
        if len(self.seeds) != 1 or self.baselines:
            raise ValueError("selection is between runs on the same split: give one seed, and no baselines")
        costly = [key for key in self.axes if any(key == c or key.startswith(f"{c}.") for c in COSTLY)]
        if costly:
            raise ValueError(f"selection needs every run to cost the same: {costly[0]!r} cannot be an axis with it")


def load_sweep(path: Path) -> tuple[SweepSettings, Tree]:
    """The settings of a sweep file, and the tree of settings that its runs start from.

    Raises:
        SettingError: for a file that is not there or not TOML, an unknown key, an empty axis, or a value out of range.
    """
    settings = parse_sweep(read_toml(path))
    tree = {} if settings.base is None else read_toml(path.parent / settings.base)
    return settings, merged(tree, settings.experiment)


def parse_sweep(tree: Tree) -> SweepSettings:
    """Validated settings of a sweep."""
    for key in tree:
        if key not in SweepSettings.model_fields:
            near = nearest(key, list(SweepSettings.model_fields))
            hint = f"did you mean {near}?" if near else f"it has {', '.join(SweepSettings.model_fields)}"
            raise SettingError(f"a sweep file has no {key!r}; {hint}; a run's settings stand in [experiment]")
    try:
        settings = SweepSettings.model_validate(tree)
    except ValidationError as error:
        raise SettingError(f"the sweep: {explain(error).removeprefix(': ')}".split("; `securekd config`")[0]) from error
    for key in settings.axes:
        _refuse_unknown(key)
    return settings


def merged(below: Tree, above: Tree) -> Tree:
    """Two trees of settings as one, in which the second's values win.

    A table is merged, unless it says what kind of thing it is (a model, a partition): that is replaced, as all else is.
    """
    tree = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(tree.get(key), dict) and "kind" not in value
        tree[key] = merged(tree[key], value) if both else copy.deepcopy(value)
    return tree


def differences(before: Tree, now: Tree, prefix: str = "") -> list[str]:
    """What changed from one tree to another, a line each."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} was {'unset' if old is None else old}, now {'unset' if new is None else new}")
    return found


def _refuse_unknown(key: str) -> None:
    known = [setting.key for setting in all_settings()]
    if key == "seed":
        raise SettingError("the axis 'seed' is given by seeds = [...]; take it out of the axes")
    open_ended = key.startswith(("data.columns.", "student.model.", "centralized.model."))
    if key in known or open_ended or any(k.startswith(f"{key}.") for k in known):
        return
    near = nearest(key, known)
    raise SettingError(
        f"the axis {key!r} names no setting; {f'did you mean {near}?' if near else '`securekd config` lists them all'}"
    )
