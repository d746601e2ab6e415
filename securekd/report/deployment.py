"""`audit.html`: what an audit of a deployment found, as one page. The same record gives the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securekd.files import write_atomically
from securekd.records.audit_record import AttackRecord, AuditRecord, Rate, read_audit
from securekd.report import numbers
from securekd.report.page import style, template
from securekd_attacks.targets.reading import MOST_NORMALISED

KINDS = {
    "folder": "A model folder",
    "endpoint": "An endpoint",
    "callable": "A Python callable",
    "signals": "Signals that were computed elsewhere",
}

BOUNDS = {
    "clopper_pearson": ("Clopper–Pearson", "Clopper–Pearson: for any mechanism"),
    "bayesian": ("Bayesian", "Bayesian: for any mechanism"),
    "gdp": ("If Gaussian", "Only if the mechanism’s trade-off is Gaussian"),
    "one_run": ("One run", "One run: for any mechanism, by coins"),
}

ACCESS = {
    "features": "features of the records",
    "inclusion": "who was in which reference",
    "labels": "true labels",
    "log_probs": "probabilities of all classes",
    "neighbour_losses": "losses on altered copies",
    "predicted": "labels alone",
    "reference_token_log_probs": "a reference’s token probabilities",
    "references": "reference models",
    "texts": "the texts",
    "token_deviations": "spread of the next token’s log-probability",
    "token_log_probs": "token probabilities",
    "token_means": "mean of the next token’s log-probability",
}


COLUMNS_SHOWN = 50
"""Columns of a record that are listed; the JSON file has the others."""


@dataclass(frozen=True)
class BoundKind:
    """One kind of bound over all attacks, with the assumptions that any of them carries."""

    short: str
    name: str
    assumptions: tuple[str, ...]


def render_audit(record: AuditRecord) -> str:
    """The report of an audit as one self-contained HTML page.

    Raises:
        InputError: if jinja2 or matplotlib is not installed.
    """
    return template("audit.html").render(_context(record))


def write_audit_report(folder: Path) -> Path:
    """Write `folder/audit.html` anew from `folder/audit.json`, and give its path.

    Raises:
        FolderError: if the folder holds no finished audit.
        InputError: if jinja2 or matplotlib is not installed.
    """
    page = render_audit(read_audit(folder))
    path = folder / "audit.html"
    write_atomically(path, page.encode())
    return path


def sharpest(record: AuditRecord) -> tuple[AttackRecord, Rate] | None:
    """The largest TPR at the least FPR that the non-members resolve, or None where they resolve none."""
    shown = [(each, rate) for each in record.attacks for rate in each.tpr_at_fpr if rate.resolved]
    if not shown:
        return None
    least = min(rate.fpr for _, rate in shown)
    return max((pair for pair in shown if pair[1].fpr == least), key=lambda pair: pair[1].value)


def contradictions(record: AuditRecord) -> tuple[str, ...]:
    """Attacks whose AUC is below TPR · (1 − FPR): no scores can have both."""
    return tuple(
        f"The record contradicts itself ({each.attack}): an AUC of {numbers.area(each.auc.value)} cannot go with a "
        f"true-positive rate of {numbers.percent(rate.value)} at {rate.realised_fpr:g} false positives."
        for each in record.attacks
        for rate in each.tpr_at_fpr
        if each.auc.value < rate.value * (1.0 - rate.realised_fpr) - 1e-9
    )


def bound_kinds(record: AuditRecord) -> tuple[BoundKind, ...]:
    """The bounds, kind by kind."""
    kinds = []
    for kind, (short, name) in BOUNDS.items():
        found = [bound for each in record.attacks for bound in each.bounds if bound.kind == kind]
        if found:
            said = tuple(dict.fromkeys(x for bound in found for x in bound.assumptions))
            kinds.append(BoundKind(short, name, said))
    return tuple(kinds)


def rounded(record: AuditRecord) -> str | None:
    """Whose probabilities had been rounded, and how coarsely, in words; None where none had."""
    found = record.rounded
    if found is None:
        return None
    return (
        f"the probabilities of {numbers.plural(found.records, 'record')} sum to one only up to their own rounding, in "
        f"steps of up to {found.step:.1g}; each row was divided by its sum, which moved no probability by more "
        f"than about {MOST_NORMALISED:.0%} of itself"
    )


def rate_name(fpr: float) -> str:
    """An FPR as a percentage without needless zeros."""
    return f"{100.0 * fpr:.6g}%"


def _context(record: AuditRecord) -> Mapping[str, Any]:
    from markupsafe import Markup

    from securekd.report.roc import curves

    return {
        "record": record,
        "columns_shown": COLUMNS_SHOWN,
        "style": style(),
        "kind": KINDS[record.kind],
        "gives": ", ".join(ACCESS.get(name, name) for name in record.gives),
        "strongest": next(each for each in record.attacks if each.attack == record.strongest),
        "sharpest": sharpest(record),
        "contradictions": contradictions(record),
        "bound_kinds": bound_kinds(record),
        "rounded": rounded(record),
        "rate_name": rate_name,
        "fprs": [rate.fpr for rate in record.attacks[0].tpr_at_fpr],
        # The serialisation of an element tree, which has escaped whatever text came into it.
        "roc": Markup(curves(record)),  # noqa: S704
    }
