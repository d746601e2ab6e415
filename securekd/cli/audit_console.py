"""`securekd audit` in a terminal: progress on standard error, results on standard output."""

from pathlib import Path

from rich.table import Table

from securekd.audit.auditing import AuditRequest, audit_deployment
from securekd.cli.terminal import Screen, progress_bar, say, say_json
from securekd.errors import PromiseError
from securekd.records.audit_record import AuditRecord, Rate, read_audit
from securekd.report import numbers
from securekd.report.deployment import rounded


def audit(request: AuditRequest, out: Path, *, resume: bool, as_json: bool) -> None:
    """Carry out an audit with a progress bar, and print what it found, also where a limit is exceeded."""
    try:
        with progress_bar("preparing") as tell:
            record = audit_deployment(
                request,
                out,
                resume=resume,
                on_progress=lambda part, done, total: tell(f"asking: {part}", done, total),
            )
    except KeyboardInterrupt:
        if (out / "answers").exists():
            say("\ninterrupted; go on with the same command and --resume", err=True)
        raise
    except PromiseError:
        _tell(read_audit(out), out, as_json)
        raise
    _tell(record, out, as_json)


def _tell(record: AuditRecord, out: Path, as_json: bool) -> None:
    if as_json:
        say_json(record.to_json().decode())
    else:
        summary(record, out)


def summary(record: AuditRecord, out: Path) -> None:
    """The record in a few lines."""
    console = Screen()
    heads = [f"TPR at {100 * rate.fpr:g}% FPR" for rate in record.attacks[0].tpr_at_fpr]
    title = f"{record.target}: {record.members:,} members, {record.nonmembers:,} non-members (AUC 0.5 is chance)"
    table = Table("attack", "AUC", *heads, "ε at least", title=title)
    for each in record.attacks:
        rates = [_rate(rate) for rate in each.tpr_at_fpr]
        area = f"{numbers.area(each.auc.value)} ({numbers.area_range(each.auc.low, each.auc.high)})"
        table.add_row(each.attack, area, *rates, numbers.epsilon_lower(each.bounds[0].epsilon_lower))
    console.print(table)
    for missing in record.not_possible:
        say(f"not possible: {missing.attack} needs {missing.needs}")
    if record.not_possible:
        say("references come with --references, a population with --population, more signals from the target")
    if record.exposure is not None:
        found = record.exposure
        say(
            f"exposure of {found.canaries} canaries: mean {found.mean:.2f} of at most {found.ceiling:.2f} bits "
            f"(1.44 is chance); {found.at_ceiling} stand before all {found.candidates - 1} candidates"
        )
    say(
        f"all attacks together: ε ≥ {numbers.epsilon_lower(record.best.epsilon_lower)} at δ = {record.delta:g} with "
        f"{record.confidence:.0%} confidence; a low lower bound is not safety"
    )
    for note in record.notes:
        say(f"data: {note}")
    if record.rounded is not None:
        say(f"rounded: {rounded(record)}")
    if record.blind is None:
        say("nobody checked whether members and non-members differ: no features, or too few records")
    elif record.blind.distribution_shift:
        say(
            f"NO LEAKAGE IS CLAIMED: a classifier that never sees the model tells members from non-members "
            f"(AUC {numbers.area_range(record.blind.auc.low, record.blind.auc.high)})"
        )
    say(f"report: {out / 'audit.html'}")


def _rate(rate: Rate) -> str:
    told = f"{numbers.percent(rate.value)} ({numbers.percent_range(rate.low, rate.high)})"
    if rate.resolved:
        return told
    if rate.nonmembers_needed is None:
        return f"{told}, unresolved: the FPR may be {numbers.percent_up(rate.fpr_high)}"
    return f"needs {numbers.count(rate.nonmembers_needed)} non-members"
