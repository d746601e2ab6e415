"""A sweep's plots: in the page's inks, with marks that its filters find, and as SVG files for papers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from securekd.records.record import POINTS
from securekd.report import numbers, svg, wording
from securekd.report.svg import ACCENT, INK, MUTED, QUIET, RULE, SECOND
from securekd.sweep.summary import Estimate, Setting, Unit
from securekd_attacks import auc_ceiling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.8

Dash = Literal["-", "--", ":", "-."]

# A strategy has an ink; an aggregation a shape and a dash, for those who do not see colours too; baselines are hollow.
_INKS = (ACCENT, SECOND, INK, MUTED, QUIET)
_SHAPES = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")

_SPREAD = 1.3  # from the first to behind the last of those at one ε, as a ratio

# What the inks are on paper.
_PAPER = {
    INK: "#1b2126",
    MUTED: "#57636d",
    RULE: "#c3ccd2",
    ACCENT: "#0b63a5",
    SECOND: "#b3500c",
    QUIET: "#8798a5",
}


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        name: of its file.
        text: SVG as matplotlib wrote it, in stand-in inks.
        said: what it shows, in words.
    """

    name: str
    text: str
    said: str

    def inline(self) -> str:
        """As an element of the page, whose inks follow the page's."""
        return svg.inline(self.text, self.name, self.said)

    def paper(self) -> str:
        """As a file of its own, in fixed inks."""
        text = self.text
        for ink, fixed in _PAPER.items():
            text = text.replace(ink, fixed)
        return text


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    key: str
    ink: str
    shape: str
    dash: Dash
    hollow: bool
    shift: float
    """Where it stands among those at the same ε, from -1/2 to 1/2."""


def looks_of(settings: Sequence[Setting]) -> dict[str, Look]:
    """How each series is drawn, by what it is called."""
    strategies, aggregations = (
        list(dict.fromkeys(getattr(s, k) for s in settings)) for k in ("strategy", "aggregation")
    )
    keys = series_of(settings)
    ways = list(dict.fromkeys((s.strategy, s.aggregation) for s in settings))
    return {
        s.series: Look(
            key=keys[s.series],
            ink=_INKS[strategies.index(s.strategy) % len(_INKS)],
            shape=_SHAPES[aggregations.index(s.aggregation) % len(_SHAPES)],
            dash=_DASHES[aggregations.index(s.aggregation) % len(_DASHES)],
            hollow=s.role != "point",
            shift=(ways.index((s.strategy, s.aggregation)) + 0.5) / len(ways) - 0.5,
        )
        for s in settings
    }


def series_of(settings: Sequence[Setting]) -> dict[str, str]:
    """A short name for each series, by what it is called."""
    return {name: f"s{i}" for i, name in enumerate(dict.fromkeys(s.series for s in settings))}


def plots(settings: Sequence[Setting], unit: Unit, delta: float | None) -> tuple[Plot, ...]:
    """Accuracy against ε, leakage against ε, bytes against accuracy.

    Args:
        settings: at least one.
        unit: whose ε the first is drawn against.
        delta: of the ε for one example, for the ceiling of leakage; None: no ceiling.
    """
    with svg.style():
        return (_accuracy(settings, unit), _leakage(settings, delta), _bytes(settings))


def _accuracy(settings: Sequence[Setting], unit: Unit) -> Plot:
    figure, axes = _figure(3.6)
    places = _Places.of([s.epsilon[unit] for s in settings])
    for name, look in looks_of(settings).items():
        own = [s for s in settings if s.series == name]
        marks = [(places.at(s.epsilon[unit], look), 100 * s.accuracy.mean) for s in own]
        _line(axes, look, marks)
        for setting, (x, y) in zip(own, marks, strict=True):
            _mark(axes, look, setting, x, y, _percent(setting.accuracy), ring=setting.pareto)
    places.label(axes, f"ε for one {unit}, at its δ")
    axes.set_ylabel("accuracy of the student")
    axes.yaxis.set_major_formatter("{x:g}%")
    _legend(figure, axes, settings)
    said = "; ".join(
        f"{s.series}, ε {'none' if (e := s.epsilon[unit]) is None else numbers.epsilon(e)}: "
        f"{numbers.percent(s.accuracy.mean)}"
        for s in settings[:40]
    )
    return Plot("accuracy", svg.drawn(figure), f"Accuracy of the student against ε. {said}.")


def _leakage(settings: Sequence[Setting], delta: float | None) -> Plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    places = _Places.of([s.epsilon["example"] for s in settings])
    for axes, point in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, POINTS, strict=True):
        axes.set_title(wording.POINTS[point], fontsize=10.5, loc="left")
        axes.axhline(0.5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        if delta is not None and places.known:
            reach = np.geomspace(places.low, places.high, 100)
            allowed = [auc_ceiling(float(e), delta) for e in reach]
            axes.plot(reach, allowed, color=MUTED, linewidth=1.6, zorder=2)
        for name, look in looks_of(settings).items():
            for setting in [s for s in settings if s.series == name and point in s.auc]:
                x, found = places.at(setting.epsilon["example"], look), setting.auc[point]
                _mark(axes, look, setting, x, found.mean, (found.low, found.high))
        axes.set_ylim(min(0.45, axes.get_ylim()[0]), 1.01)
        axes.grid(axis="y", color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        places.label(axes, "")
    figure.supxlabel("ε for one example; the line above is what it allows, 0.5 is chance", fontsize=10, color=MUTED)
    figure.supylabel("AUC of the strongest attack", fontsize=10, color=MUTED)
    said = "; ".join(f"{s.series}: {_areas(s)}" for s in settings[:20])
    return Plot("leakage", svg.drawn(figure), f"AUC of the strongest attack against ε, by observation point. {said}.")


def _areas(setting: Setting) -> str:
    found = ((point, setting.auc[point]) for point in POINTS if point in setting.auc)
    return ", ".join(f"{wording.POINTS[point].lower()} {numbers.area(auc.mean)}" for point, auc in found)


def _bytes(settings: Sequence[Setting]) -> Plot:
    from matplotlib.ticker import NullLocator

    figure, axes = _figure(3.6)
    for name, look in looks_of(settings).items():
        for setting in [s for s in settings if s.series == name]:
            _mark(
                axes, look, setting, setting.upload, 100 * setting.accuracy.mean, _percent(setting.accuracy),
                ring=setting.pareto,
            )  # fmt: skip
    axes.set_xscale("log")
    sent = [s.upload for s in settings]
    ticks = np.geomspace(min(sent), max(sent), 4) if max(sent) > 1.05 * min(sent) else np.array([sent[0]])
    axes.set_xticks(ticks, [numbers.size(float(value)) for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("upload of the mean client over the whole run")
    axes.set_ylabel("accuracy of the student")
    axes.yaxis.set_major_formatter("{x:g}%")
    _legend(figure, axes, settings)
    said = "; ".join(f"{s.series}: {numbers.size(s.upload)}, {numbers.percent(s.accuracy.mean)}" for s in settings[:40])
    return Plot("bytes", svg.drawn(figure), f"Accuracy of the student against uploaded bytes. {said}.")


@dataclass(frozen=True)
class _Places:
    """Where an ε stands: on a log scale, settings without one to the right of all, and those at one ε side by side."""

    known: tuple[float, ...]
    low: float
    high: float
    nowhere: float
    missing: bool
    spread: float

    @classmethod
    def of(cls, found: Sequence[float | None]) -> "_Places":
        known = tuple(sorted({e for e in found if e is not None and e > 0}))
        low, high = (known[0] / 1.3, known[-1] * 1.3) if known else (1.0, 1.0)
        apart = min((b / a for a, b in pairwise(known)), default=math.inf)
        return cls(known, low, high, high * 1.8, None in found, spread=min(_SPREAD, math.sqrt(apart)))

    def at(self, epsilon: float | None, look: Look) -> float:
        place = self.nowhere if epsilon is None else max(epsilon, self.low)
        return place * math.exp(look.shift * math.log(self.spread))

    def label(self, axes: "Axes", text: str) -> None:
        from matplotlib.ticker import NullFormatter, NullLocator

        axes.set_xscale("log")
        ticks = [e for i, e in enumerate(self.known) if i == 0 or e > 1.25 * self.known[i - 1]]
        names = [numbers.epsilon(e).removesuffix(".00") for e in ticks]
        if self.missing:
            ticks.append(self.nowhere)
            names.append("none")
        axes.set_xticks(ticks, names)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(self.low, self.nowhere * 1.3 if self.missing else self.high)
        axes.set_xlabel(text)


def _figure(height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _line(axes: "Axes", look: Look, marks: Sequence[tuple[float, float]]) -> None:
    """Join a series' marks, if there is one for each ε: several have no order."""
    if len({x for x, _ in marks}) < len(marks) or len(marks) < 2:
        return
    (line,) = axes.plot(*zip(*sorted(marks), strict=True), color=look.ink, linestyle=look.dash, linewidth=1.4, zorder=3)
    line.set_gid(f"series-{look.key}")


def _mark(
    axes: "Axes", look: Look, setting: Setting, x: float, y: float, interval: tuple[float, float], *, ring: bool = False
) -> None:
    gid = f"setting-{setting.group}"
    bar = axes.vlines(x, *interval, color=look.ink, linewidth=1.4, zorder=4)
    bar.set_gid(gid)
    if ring:
        axes.scatter([x], [y], s=150, facecolors="none", edgecolors=look.ink, linewidths=1.2, zorder=4).set_gid(gid)
    mark = axes.scatter(
        [x], [y], s=36, marker=look.shape, edgecolors=look.ink, facecolors="none" if look.hollow else look.ink,
        linewidths=1.4, zorder=5,
    )  # fmt: skip
    mark.set_gid(gid)
    mark.set_urls([f"runs/{setting.runs[0]}/report.html"])


def _legend(figure: "Figure", axes: "Axes", settings: Sequence[Setting]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=look.ink, marker=look.shape, linestyle="none" if look.hollow else look.dash, linewidth=1.4,
            markersize=6, markerfacecolor="none" if look.hollow else look.ink, label=name,
        )
        for name, look in looks_of(settings).items()
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10)


def _percent(found: Estimate) -> tuple[float, float]:
    return 100 * max(found.low, 0.0), 100 * min(found.high, 1.0)
