"""Runs that differ in their seed alone, put together: means with intervals, and which settings no other one beats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from securekd.sweep.table import COLUMNS

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Unit = Literal["example", "client"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the runs.
        low: lower end of its interval at `CONFIDENCE` (Student's t: seeds are independent, their spread about normal).
        high: upper end; both equal the mean where there is one run, which tells nothing of the spread.
        runs: how many.
    """

    mean: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Setting:
    """One setting, over all its seeds.

    Attributes:
        group: its number.
        role: point, or a baseline's name.
        strategy: who teaches whom.
        aggregation: how releases are added up.
        axes: other settings in which it differs, by name.
        epsilon: proven ε by unit, the largest over seeds; None as soon as one seed has none.
        accuracy: of the student.
        centralized: accuracy with all data in one place, the same DP.
        auc: the strongest attack's, by observation point.
        ceiling: the largest AUC that ε allows; None without ε.
        upload: bytes of the mean client.
        runs: keys, a run for each seed.
        pareto: whether no other setting of the sweep is at least as private and as accurate, and better in one.
    """

    group: int
    role: str
    strategy: str
    aggregation: str
    axes: dict[str, Any]
    epsilon: dict[Unit, float | None]
    accuracy: Estimate
    centralized: Estimate
    auc: dict[str, Estimate]
    ceiling: float | None
    upload: float
    runs: tuple[str, ...]
    pareto: bool = False

    @property
    def series(self) -> str:
        """What it is drawn with: its strategy and its aggregation, or the baseline."""
        beside = {"point": "", "fedavg": " (baseline)", "nonprivate": ", no privacy"}[self.role]
        return f"{self.strategy}, {self.aggregation}{beside}"


def settings_of(frame: "DataFrame", unit: Unit | None = None) -> tuple[Setting, ...]:
    """Every setting that has a result, in the order of the plan; those on the frontier of `unit` are marked."""
    done = frame[frame["accuracy"].notna()]
    found = [_setting(rows) for _, rows in done.groupby("group", sort=True)]
    chosen = unit or unit_of(found)
    return tuple(replace(s, pareto=_unbeaten(s, found, chosen)) for s in found)


def unit_of(settings: Sequence[Setting]) -> Unit:
    """The unit whose ε a sweep is about: examples, unless only whole clients have one."""
    example, client = (any(s.epsilon[unit] is not None for s in settings) for unit in ("example", "client"))
    return "client" if client and not example else "example"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of the values of some seeds."""
    from scipy.stats import t

    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean, mean, mean, 1)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread
    return Estimate(mean, mean - half, mean + half, len(values))


def _setting(rows: "DataFrame") -> Setting:
    by_run = rows.drop_duplicates("run")
    first = by_run.iloc[0]
    ceilings = by_run["auc_ceiling"]
    return Setting(
        group=int(first["group"]),
        role=str(first["role"]),
        strategy=str(first["strategy"]),
        aggregation=str(first["aggregation"]),
        axes=_axes(first),
        epsilon={"example": _largest(by_run["epsilon_example"]), "client": _largest(by_run["epsilon_client"])},
        accuracy=estimate(by_run["accuracy"].tolist()),
        centralized=estimate(by_run["centralized_accuracy"].tolist()),
        auc={str(point): estimate(found["auc"].tolist()) for point, found in rows.groupby("point", sort=False)},
        ceiling=None if ceilings.isna().any() else float(ceilings.max()),
        upload=float(by_run["upload_bytes"].mean()),
        runs=tuple(by_run["run"].tolist()),
    )


def _axes(row: "Series[Any]") -> dict[str, Any]:
    import pandas as pd

    own = {c.name for c in COLUMNS}
    return {str(name): value for name, value in row.items() if name not in own and not pd.isna(value)}


def _largest(values: "Series[Any]") -> float | None:
    return None if values.isna().any() else float(values.max())


def _unbeaten(one: Setting, others: Sequence[Setting], unit: Unit) -> bool:
    cost = _cost(one, unit)
    return not any(
        _cost(other, unit) <= cost
        and other.accuracy.mean >= one.accuracy.mean
        and (_cost(other, unit) < cost or other.accuracy.mean > one.accuracy.mean)
        for other in others
    )


def _cost(setting: Setting, unit: Unit) -> float:
    found = setting.epsilon[unit]
    return math.inf if found is None else found
