"""The page's plots, each as an inline SVG element with a text alternative."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from securekd.records.record import Holdings, Round
from securekd.report import numbers, svg
from securekd.report.audit import PointOfRun
from securekd.report.facts import Bar, elide
from securekd.report.svg import ACCENT, MUTED, QUIET, RULE, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.8
"""Inches of 72 units: narrow, so that the lettering of a plot can be read on a phone."""

_HOLDINGS_INK = "#767676"


def utility(bars: Sequence[Bar]) -> str:
    """Accuracy as a bar for each model, its label above it and its value at its end."""
    with svg.style():
        figure, axes = _figure(0.52 * len(bars) + 0.1)
        for i, bar in enumerate(bars):
            accuracy = 100 * bar.utility.accuracy
            weight = "bold" if bar.main else "normal"
            axes.barh(i, 100, height=0.3, color=RULE, alpha=0.45)
            axes.barh(i, accuracy, height=0.3, color=ACCENT if bar.main else QUIET)
            axes.text(0, i - 0.27, bar.label, va="bottom", fontsize=10.5, weight=weight)
            axes.text(
                100,
                i - 0.27,
                numbers.percent(bar.utility.accuracy),
                va="bottom",
                ha="right",
                fontsize=10.5,
                weight=weight,
            )
        axes.set(xlim=(0, 100), ylim=(len(bars) - 0.75, -0.75))
        axes.axis("off")
        said = "; ".join(f"{bar.label} {numbers.percent(bar.utility.accuracy)}" for bar in bars)
        return svg.inline(svg.drawn(figure), "utility", f"Bars of accuracy on the test set: {said}.")


def rounds(done: Sequence[Round]) -> str:
    """The accuracy of the student and of the mean client over the rounds."""
    from matplotlib.ticker import MaxNLocator

    with svg.style():
        figure, axes = _figure(2.5)
        numbered = [r.round for r in done]
        lines = (
            ("student", [100 * r.student.accuracy for r in done], ACCENT, "o", "-"),
            ("mean client", [100 * r.clients_mean_accuracy for r in done], SECOND, "s", "--"),
        )
        ends = _apart([line[1][-1] for line in lines])
        for (name, values, colour, marker, dash), end in zip(lines, ends, strict=True):
            marks = marker if len(done) <= 40 else ""
            axes.plot(numbered, values, color=colour, marker=marks, linestyle=dash, linewidth=2, markersize=5)
            axes.annotate(
                f"{name} {values[-1]:.1f}%", (numbered[-1], end), xytext=(9, 0), textcoords="offset points", va="center"
            )
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:.0f}%")
        axes.grid(axis="y", color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        said = "; ".join(
            f"round {r.round}: student {numbers.percent(r.student.accuracy)}, "
            f"mean client {numbers.percent(r.clients_mean_accuracy)}"
            for r in (done if len(done) <= 20 else (done[0], done[-1]))
        )
        return svg.inline(svg.drawn(figure), "rounds", f"Accuracy by round. {said}.")


def leakage(points: Sequence[PointOfRun]) -> str:
    """Each attack's AUC with its interval, against chance and against the ceiling that ε allows."""
    with svg.style():
        rows = sum(len(point.attacks) + 1.15 for point in points)
        figure, axes = _figure(0.27 * rows + 0.75)
        lowest = min([0.45] + [a.found.auc_ci[0] - 0.02 for point in points for a in point.attacks])
        at, ticks, names = 0.0, [], []
        for point in points:
            ticks.append(at)
            names.append(point.name)
            first, at = at + 0.6, at + 1
            for attack in point.attacks:
                low, high = attack.found.auc_ci
                axes.plot([low, high], [at, at], color=ACCENT, linewidth=2.4, solid_capstyle="butt")
                axes.plot([attack.found.auc], [at], color=ACCENT, marker="o", markersize=6)
                ticks.append(at)
                names.append(elide(attack.found.attack, 20))
                at += 1
            if point.ceiling is not None:
                axes.plot([point.ceiling.auc] * 2, [first, at - 0.6], color=SECOND, linewidth=3, solid_capstyle="butt")
            at += 0.15
        axes.plot([0.5, 0.5], [-0.55, at - 0.4], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        heads = {point.name for point in points}
        for label in axes.set_yticks(ticks, names):
            label.label1.set_fontweight("bold" if label.label1.get_text() in heads else "normal")
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(lowest, 1.005), ylim=(at - 0.4, -1.1), xlabel="AUC of the attack")
        axes.spines["left"].set_visible(False)
        axes.text(0.5, -0.95, "chance", ha="center", va="center", color=MUTED, fontsize=10)
        if any(point.ceiling for point in points):
            axes.text(1.005, -0.95, "allowed by ε", ha="right", va="center", color=SECOND, fontsize=10)
        return svg.inline(svg.drawn(figure), "leakage", _leakage_said(points))


def holdings(data: Holdings) -> str:
    """A bar for each client, stacked by class."""
    import numpy as np

    from securekd.data.holdings import Holdings as Drawn

    names = tuple(elide(name, 24) for name in data.clients)
    classes = tuple(elide(name, 24) for name in data.classes)
    with svg.style():
        text = Drawn(names, classes, np.array(data.counts, dtype=np.int64)).plot()
    totals = [sum(row) for row in data.counts]
    said = (
        f"Stacked bars of private examples by client and class: {numbers.plural(len(names), 'client')} "
        f"with {min(totals, default=0):,} to {max(totals, default=0):,} examples each. The table has every number."
    )
    return svg.inline(text, "holdings", said, {_HOLDINGS_INK: "currentColor"})


def _leakage_said(points: Sequence[PointOfRun]) -> str:
    parts = []
    for point in points:
        found = ", ".join(
            f"{a.found.attack} {numbers.area(a.found.auc)} ({numbers.area_range(*a.found.auc_ci)})"
            for a in point.attacks
        )
        top = f"at most {numbers.area_up(point.ceiling.auc)} allowed" if point.ceiling else "no ceiling"
        parts.append(f"{point.name}: {found}, {top}")
    return f"AUC of each attack with its interval; chance is 0.5. {'; '.join(parts)}."


def _figure(height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _apart(ends: list[float], gap: float = 4.0) -> list[float]:
    """Two label positions, moved apart where they would overlap."""
    first, second = ends
    if abs(first - second) >= gap:
        return ends
    middle, half = (first + second) / 2, gap / 2
    return [middle + half, middle - half] if first >= second else [middle - half, middle + half]
