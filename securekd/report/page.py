"""The page itself: a record in, HTML out. The same record gives the same bytes."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securekd.errors import InputError
from securekd.files import write_atomically
from securekd.privacy.events import VIEWS
from securekd.records.record import Result, read_result
from securekd.report import audit, facts, numbers, wording

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_FILTERS = {
    "percent": numbers.percent,
    "percent_up": numbers.percent_up,
    "points": numbers.points,
    "area": numbers.area,
    "area_up": numbers.area_up,
    "epsilon": numbers.epsilon,
    "epsilon_lower": numbers.epsilon_lower,
    "delta": numbers.delta,
    "count": numbers.count,
    "size": numbers.size,
    "duration": numbers.duration,
    "elide": facts.elide,
}


def render(result: Result) -> str:
    """The report of a run as one self-contained HTML page.

    Raises:
        InputError: if jinja2 or matplotlib is not installed.
    """
    return template("report.html").render(_context(result))


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` anew from `folder/result.json`, and give its path.

    Raises:
        FolderError: if the folder holds no finished run.
        InputError: if jinja2 or matplotlib is not installed.
    """
    page = render(read_result(folder))
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def template(name: str) -> "Template":
    """One of the templates, with this package's filters.

    Raises:
        InputError: if jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(f"a report needs {error.name}; pip install 'securekd[report]'") from error
    return environment().get_template(name)


def style() -> str:
    """The style sheet of every page."""
    return files("securekd.report").joinpath("templates/style.css").read_text(encoding="utf-8")


@cache
def environment(*packages: str) -> "Environment":
    """Templates of `packages` and of this one, with what they print numbers with."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "securekd.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= _FILTERS
    made.globals |= {
        "plural": numbers.plural,
        "area_range": numbers.area_range,
        "percent_range": numbers.percent_range,
    }
    return made


def _context(result: Result) -> Mapping[str, Any]:
    seeded = result.environment.noise == "seeded"
    bars, points = facts.models(result), audit.points(result)
    return {
        "result": result,
        "style": style(),
        "seeded": seeded,
        "contradictions": audit.contradictions(result),
        "setup": facts.setup(result),
        "shortfall": facts.shortfall(result),
        "bars": bars,
        "promised_example": facts.promised(result, "example"),
        "promised_client": facts.promised(result, "client", "server"),
        "views": wording.views(result.privacy, seeded),
        "meaningless_above": wording.MEANINGLESS_ABOVE,
        "worst": audit.worst(result),
        "point_names": wording.POINTS,
        "points": points,
        "attacks_made": len(audit.last_round(result)),
        "rounds_observed": audit.rounds_observed(result),
        "courses": audit.courses(result),
        "rate_names": audit.RATE_NAMES,
        "common_ceiling": audit.common_ceiling(points),
        "measured": {view: audit.in_view(result, view) for view in VIEWS},
        "example_delta": audit.example_delta(result),
        "holdings": facts.holdings_shown(result.data),
        "clients_shown": facts.CLIENTS_SHOWN,
        "against_fedavg": facts.against_fedavg(result),
        "gradients": facts.gradients(result),
        "configuration": facts.configuration(result.experiment),
        "plots": _plots(result, bars, points),
    }


def _plots(result: Result, bars: tuple[facts.Bar, ...], points: tuple[audit.PointOfRun, ...]) -> Mapping[str, Any]:
    from markupsafe import Markup

    from securekd.report import plots

    # Each plot is the serialisation of an element tree, which has escaped whatever text came into it.
    drawn = {
        "utility": plots.utility(bars),
        "rounds": plots.rounds(result.rounds) if len(result.rounds) > 1 else "",
        "leakage": plots.leakage(points) if points else "",
        "holdings": plots.holdings(facts.holdings_shown(result.data)) if result.data.clients else "",
    }
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 - see above
