"""What the command shows in a terminal: progress on standard error, results on standard output."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table
from rich.text import Text

from securekd.cli.terminal import Screen, escape, progress_bar, say, say_json
from securekd.data.holdings import Holdings, holdings
from securekd.privacy.events import Entry
from securekd.records.record import GuaranteeRecord, Result
from securekd.settings.audit import Audit
from securekd.settings.config import all_settings
from securekd.settings.experiment import Experiment

if TYPE_CHECKING:  # accounting is not needed for help
    from securekd.laboratory.plan import Plan
    from securekd.privacy.accountant import Guarantee

VIEW_WORDS = {"server": "the server", "clients": "the clients", "public": "the public"}
NEIGHBOUR_WORDS = {"add_remove": "add/remove", "replace_one": "replace-one", "zero_out": "zero-out"}


def run(experiment: Experiment, out: Path, *, as_json: bool) -> None:
    """Run an experiment in a new folder, with a progress bar."""
    from securekd.laboratory import runner

    _carry_out(lambda on_progress: runner.run(experiment, out, on_progress), out, as_json)


def resume(out: Path, *, plugins: Collection[str] = (), as_json: bool) -> None:
    """Finish the run in a folder, with a progress bar."""
    from securekd.laboratory import runner

    _carry_out(lambda on_progress: runner.resume(out, on_progress, plugins=plugins), out, as_json)


def dry_run(experiment: Experiment, *, as_json: bool) -> None:
    """Print the split, the guarantee and the bytes; nothing is trained or written."""
    from securekd.laboratory.plan import make_plan
    from securekd.laboratory.preview import preview

    plan = make_plan(experiment)
    shown = preview(plan)
    if as_json:
        say_json(json.dumps(shown.model_dump(mode="json"), indent=1))
        return
    console = Screen()
    console.print(holdings_table(holdings(plan.data)))
    console.print("models: " + ", ".join(f"{escape(c.name)} {c.model}" for c in shown.clients))
    console.print(
        f"transfer set: {shown.transfer} rows, labels {'used' if shown.transfer_labels else 'unused'}; "
        f"test set: {shown.test} rows"
    )
    for note in shown.notes:
        console.print(f"data: {note}")
    console.print(f"server sees: {shown.server_sees}")
    multiplier = shown.dp_sgd_noise_multiplier
    console.print(
        "training: "
        + ("no DP" if multiplier is None else f"DP-SGD with noise multiplier {multiplier:.4g}{_why_least(plan)}")
    )
    for one in shown.releases:
        console.print(
            f"release: {one.values} values in steps of {one.step:.3g}, {one.mechanism} noise of {one.noise:.4g} from "
            f"each client against a sensitivity of {one.sensitivity:.4g}"
        )
    console.print(_guarantee_table(shown.guarantees))
    instead = f"; its weights instead would be {_bytes(shown.fedavg_bytes_per_client)}"
    console.print(
        f"over {experiment.rounds} round(s) each client uploads about {_bytes(shown.upload_bytes_per_client)} "
        f"and downloads {_bytes(shown.download_bytes_per_client)}{'' if experiment.strategy == 'fedavg' else instead}"
    )
    console.print(f"audit: {_asked_of(experiment.audit)}")
    console.print(
        f"adding releases up takes about {shown.aggregation_s:.2g} s over the run, as a rehearsal with zeros did"
    )


def holdings_table(held: Holdings) -> Table:
    """One row for each client, one column for each class, and the sums."""
    table = Table(title="Who holds what", show_footer=True)
    table.add_column("client", footer="all")
    for name, total in zip(held.classes, held.counts.sum(axis=0), strict=True):
        table.add_column(Text(escape(name)), footer=f"{total:,}", justify="right")
    table.add_column("all", footer=f"{held.counts.sum():,}", justify="right", style="bold")
    for name, row in zip(held.clients, held.counts, strict=True):
        table.add_row(Text(escape(name)), *(f"{count:,}" if count else "·" for count in row), f"{row.sum():,}")
    return table


def _why_least(plan: "Plan") -> str:
    """Why a noise multiplier is as small as they come, where it is."""
    from securekd.privacy.accountant import needs_no_noise

    privacy, rounds = plan.experiment.privacy, plan.experiment.rounds
    dp = plan.agreement.dp
    if dp is None or not needs_no_noise(dp.sampling_rate, dp.steps * rounds, privacy.delta):
        return ""
    return (
        f", the least that is taken: no noise is needed at δ = {privacy.delta:g}, "
        "since an example is as rarely sampled at all; lower privacy.delta"
    )


def _asked_of(audit: Audit) -> str:
    """What an audit will measure, in one line."""
    points = "every point after every round" if audit.points == "all" else "four points after the last round"
    said = [f"{', '.join(audit.attacks)} at {points}"]
    if audit.canaries:
        said.append(f"{audit.canaries} canaries of each kind ({', '.join(audit.canary_kinds)})")
    if audit.replays:
        said.append(f"releases played {audit.replays} times with a client's longest vector and as often without")
    return "; ".join(said)


def account(folder: Path, *, as_json: bool) -> None:
    """Print what a run's ledger proves, and whether its record agrees."""
    from securekd.records.account import account as recompute

    found = recompute(folder)
    if as_json:
        say_json(json.dumps([vars(g) for g in found.guarantees], indent=1))
        return
    console = Screen()
    console.print(_event_table(found.ledger.entries))
    console.print(_guarantee_table(found.guarantees))
    if found.record is None:
        say(f"recomputed from {folder / 'ledger.json'}; the run is not finished, so there is no record to compare")
    else:
        say(f"recomputed from {folder / 'ledger.json'}; the record states the same")


def settings(*, markdown: bool, sweep: bool = False) -> None:
    """Print the table of all settings, of an experiment or of a sweep file."""
    from securekd.sweep.settings import SweepSettings

    found = all_settings(SweepSettings if sweep else Experiment)
    rows = [(s.key, s.type, s.default, s.range, s.meaning) for s in found]
    heads = ("setting", "type", "default", "range", "meaning")
    if markdown:
        say("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
        for row in rows:
            say("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |")
        return
    for key, kind, default, limits, meaning in rows:
        about = "; ".join(part for part in (kind, f"default {' '.join(default.split())}", limits) if part)
        say(f"{key}\n    {meaning}\n    ({about})")


def summary(result: Result, out: Path) -> None:
    """The result in a few lines."""
    from securekd.report import facts, numbers

    console = Screen()
    utility = result.utility
    table = Table("model", "accuracy", title="utility on the test set")
    for name, value in (
        ("student", utility.student),
        ("clients alone, mean", utility.local_mean),
        ("clients alone, best", utility.local_best),
        ("all data in one place, same DP", utility.centralized),
        ("all data in one place, no privacy", utility.centralized_nonprivate),
        ("linear head on all data, same DP", utility.simple),
    ):
        if value is not None:
            table.add_row(name, f"{value.accuracy:.1%}")
    console.print(table)
    short = facts.shortfall(result)
    if short is not None:
        console.print(short)
    console.print(_guarantee_table(result.privacy.guarantees))
    leaks = Table("observation point", "attack", "AUC", "95% interval", title="measured leakage (0.5 is chance)")
    leaks.columns[3].header = f"{result.leakage[0].confidence:.0%} interval"
    for leak in result.leakage:
        if leak.round in (None, result.communication.rounds):
            leaks.add_row(leak.point, leak.attack, numbers.area(leak.auc), numbers.area_range(*leak.auc_ci))
    console.print(leaks)
    if result.canaries is not None or result.replays:
        console.print(_bounds_table(result))
    for note in result.data.notes:
        console.print(f"data: {note}")
    if result.environment.noise == "seeded":
        say("the noise was seeded: nothing is protected in this run")
    say(f"report: {out / 'report.html'}")


def _carry_out(work: Callable[[Callable[[object], None]], Result], out: Path, as_json: bool) -> None:
    from securekd.laboratory.runner import Progress as Step

    with progress_bar("preparing") as tell:

        def on_progress(step: object) -> None:
            if isinstance(step, Step):
                tell(step.phase, step.done, step.total)

        try:
            result = work(on_progress)
        except KeyboardInterrupt:
            if (out / "config.toml").exists():
                say(f"\ninterrupted; go on with: securekd run --resume {out}", err=True)
            raise
    if as_json:
        say_json(result.to_json().decode())
    else:
        summary(result, out)


def _event_table(entries: Iterable[Entry]) -> Table:
    """Ledger entries that differ in client and round only, counted together."""
    counted = Counter((e.phase, e.unit, e.neighbours, e.views, e.event) for e in entries)
    heads = ("what", "protects", "neighbours", "seen by", Column("event", overflow="fold"), "times")
    table = Table(*heads, title="ledger")
    for (phase, unit, neighbours, views, event), times in counted.items():
        fields = event.model_dump(exclude_defaults=True, exclude={"total_variation"})
        said = ", ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in fields.items())
        table.add_row(
            phase, f"one {unit}", NEIGHBOUR_WORDS[neighbours], ", ".join(views), f"{event.kind}: {said}", str(times)
        )
    return table


def _bounds_table(result: Result) -> Table:
    """The lower bounds of canaries and of replays after the last round, beside the ledger's ε."""
    from securekd.report import numbers

    table = Table("observation point", "of", "ε at least", "ε proven", title="lower bounds beside the ledger")
    last = result.communication.rounds
    found = [
        (b.point, f"{b.kind} canaries, {b.attack} attack", b.epsilon_lower, b.epsilon)
        for b in (() if result.canaries is None else result.canaries.bounds)
        if b.round == last
    ]
    for r in result.replays:
        if r.round == last:
            found.append((r.point, "replayed releases, any noise", r.epsilon_lower, r.epsilon))
            if r.epsilon_lower_gaussian is not None:
                found.append((r.point, "replayed releases, if Gaussian", r.epsilon_lower_gaussian, r.epsilon))
    for point, of, lower, epsilon in found:
        table.add_row(point, of, numbers.epsilon_lower(lower), "none" if epsilon is None else numbers.epsilon(epsilon))
    return table


def _guarantee_table(guarantees: "Sequence[Guarantee] | Sequence[GuaranteeRecord]") -> Table:
    from securekd.report import numbers

    table = Table("against", "protected", "ε", "δ", "neighbours", "why none", title="proven guarantee")
    for g in guarantees:
        epsilon = "none" if g.epsilon is None else numbers.epsilon(g.epsilon)
        neighbours = NEIGHBOUR_WORDS[g.neighbours] if g.neighbours else ""
        table.add_row(VIEW_WORDS[g.view], f"one {g.unit}", epsilon, f"{g.delta:g}", neighbours, g.why or "")
    return table


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"
