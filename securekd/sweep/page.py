"""`sweep.html`: one self-contained page of all runs, in the look of a run's report; and the plots as files."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from securekd.errors import InputError
from securekd.files import write_atomically, writing
from securekd.report import page, wording
from securekd.sweep.choice import cost_of_choice
from securekd.sweep.folder import SweepFolder
from securekd.sweep.plan import SweepPlan, describe
from securekd.sweep.plots import Plot, plots, series_of
from securekd.sweep.summary import CONFIDENCE, Setting, Unit, settings_of, unit_of
from securekd.sweep.table import columns_of, write_table

if TYPE_CHECKING:
    from jinja2 import Template
    from pandas import DataFrame

_FILTER_NAMES = {"strategy": "Strategy", "aggregation": "Aggregation", "role": "Kind of run"}


@dataclass(frozen=True)
class _Failed:
    """A run without a result, as the page lists it."""

    key: str
    setting: str
    seed: int
    why: str


def write_outputs(plan: SweepPlan, folder: SweepFolder) -> None:
    """Write the table, the page and the plots of what is finished.

    Raises:
        InputError: if pandas, pyarrow, jinja2 or matplotlib is not installed.
    """
    refuse_missing()
    frame = write_table(plan, folder)
    settings = settings_of(frame)
    unit = unit_of(settings)
    drawn = plots(settings, unit, _delta(frame)) if settings else ()
    with writing(folder.plots):
        folder.plots.mkdir(exist_ok=True)
    for plot in drawn:
        write_atomically(folder.plots / f"{plot.name}.svg", plot.paper().encode())
    write_atomically(folder.page, render(plan, folder, frame, settings, unit, drawn).encode())


def refuse_missing() -> None:
    """Refuse to begin what could not be written at the end.

    Raises:
        InputError: with the package that is not installed.
    """
    try:
        import jinja2
        import joblib
        import matplotlib
        import pandas
        import pyarrow

        del jinja2, joblib, matplotlib, pandas, pyarrow
    except ImportError as error:
        raise InputError(f"a sweep needs {error.name}; pip install 'securekd[train,report,sweep]'") from error


def render(
    plan: SweepPlan,
    folder: SweepFolder,
    frame: "DataFrame",
    settings: Sequence[Setting],
    unit: Unit,
    drawn: Sequence[Plot],
) -> str:
    """The page; the same table gives the same bytes."""
    from markupsafe import Markup

    resources = files("securekd.sweep").joinpath("templates")
    script = resources.joinpath("sweep.js").read_text(encoding="utf-8")
    runs = frame.drop_duplicates("run")
    context: dict[str, Any] = {
        "version": version("securekd"),
        "style": files("securekd.report").joinpath("templates/style.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "planned": len(plan.runs),
        "done": int(runs["accuracy"].notna().sum()),
        "seeds": plan.settings.seeds,
        "seeded": int(((runs["noise"] == "seeded") & runs["accuracy"].notna()).sum()),
        "broken": runs[runs["status"] == "promise"]["run"].tolist(),
        "failed": _failed(plan, folder),
        "settings": settings,
        "series": series_of(settings),
        "axes": [axis for axis in plan.axes if axis not in ("strategy", "aggregation")],
        "unit": unit,
        "clients_protected": any(s.epsilon["client"] is not None for s in settings),
        "best": _best(settings, unit),
        "meaningless_above": wording.MEANINGLESS_ABOVE,
        "choice": cost_of_choice(plan, folder),
        "confidence": f"{100 * CONFIDENCE:g}",
        "filters": {key: list(dict.fromkeys(getattr(s, key) for s in settings)) for key in _FILTER_NAMES},
        "filter_names": _FILTER_NAMES,
        "columns": columns_of(plan),
        # Each plot is the serialisation of an element tree, which has escaped whatever text came into it.
        "plots": {plot.name: Markup(plot.inline()) for plot in drawn},  # noqa: S704
    }
    return _template().render(context)


@cache
def _template() -> "Template":
    return page.environment("securekd.sweep").get_template("sweep.html")


def _failed(plan: SweepPlan, folder: SweepFolder) -> tuple[_Failed, ...]:
    found = ((run, folder.failure(run)) for run in plan.runs)
    return tuple(
        _Failed(run.key, f"{describe(run.point)} ({run.role})", run.seed, failure.error)
        for run, failure in found
        if failure is not None and failure.kind != "promise"
    )


def _best(settings: Sequence[Setting], unit: Unit) -> Setting | None:
    within = [s for s in settings if (e := s.epsilon[unit]) is not None and e <= wording.MEANINGLESS_ABOVE]
    return max(within, key=lambda s: s.accuracy.mean, default=None)


def _delta(frame: "DataFrame") -> float | None:
    found = frame[frame["epsilon_example"].notna()]["delta_example"]
    return float(found.max()) if len(found) else None
