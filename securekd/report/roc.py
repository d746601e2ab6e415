"""The ROC curves of an audit on logarithmic axes, where the few records that leak most can be seen."""

from collections.abc import Sequence

import numpy as np

from securekd.records.audit_record import AttackRecord, AuditRecord
from securekd.report import numbers, svg
from securekd.report.facts import elide
from securekd.report.svg import ACCENT, INK, MUTED, RULE, SECOND

DRAWN = 3
"""Attacks with a curve, those of the largest AUC; the table has all."""

_INKS = ((ACCENT, "-"), (SECOND, (0, (5, 2))), (INK, (0, (1, 1.5))))


def curves(record: AuditRecord) -> str:
    """The curves of the strongest attacks with their bands, against chance, as an inline SVG element."""
    from matplotlib.figure import Figure

    drawn = strongest(record.attacks)
    least = 10.0 ** np.floor(np.log10(1.0 / max(record.members, record.nonmembers)))
    with svg.style():
        figure = Figure(figsize=(5.8, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log", xlim=(least, 1.0), ylim=(least, 1.05))
        axes.plot([least, 1.0], [least, 1.0], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for each, (colour, dash) in zip(drawn, _INKS, strict=False):
            fpr = np.maximum([*each.roc.fpr, 1.0], least)
            tpr, low, high = (
                np.maximum([*part, 1.0], least / 10.0) for part in (each.roc.tpr, each.roc.low, each.roc.high)
            )
            axes.fill_between(fpr, low, high, step="post", color=colour, alpha=0.16, linewidth=0)
            axes.step(fpr, tpr, where="post", color=colour, linestyle=dash, linewidth=2, label=elide(each.attack, 28))
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.xaxis.set_major_formatter(_percent)
        axes.yaxis.set_major_formatter(_percent)
        axes.grid(color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.minorticks_off()
        axes.legend(loc="lower right", frameon=False, fontsize=10.5)
        return svg.inline(svg.drawn(figure), "roc", _said(drawn))


def strongest(attacks: Sequence[AttackRecord]) -> list[AttackRecord]:
    """The attacks that are drawn, the strongest first."""
    return sorted(attacks, key=lambda each: -each.auc.value)[:DRAWN]


def _percent(value: float, _: float) -> str:
    return f"{100.0 * value:g}%"


def _said(drawn: Sequence[AttackRecord]) -> str:
    parts = [
        f"{each.attack}: "
        + ", ".join(
            f"{numbers.percent(rate.value)} at {100.0 * rate.fpr:g}%" for rate in each.tpr_at_fpr if rate.resolved
        )
        for each in drawn
    ]
    return f"True-positive rate over false-positive rate, both on logarithmic axes. {'; '.join(parts)}."
