"""What `securekd sweep` and `securekd frontier` show: the plan first, a progress bar, what came of it."""

import math
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

from rich.table import Table

from securekd.cli.terminal import OnProgress, Screen, progress_bar, say
from securekd.errors import InputError, PromiseError, RunError
from securekd.plugins import refuse_unnamed
from securekd.report import numbers
from securekd.settings.experiment import Experiment
from securekd.sweep import frontier as reached
from securekd.sweep.choice import Choice, cost_of_choice
from securekd.sweep.execution import Backend, Progress, carry_out_sweep
from securekd.sweep.folder import SweepFolder
from securekd.sweep.page import refuse_missing, write_outputs
from securekd.sweep.plan import PlannedRun, SweepPlan
from securekd.sweep.settings import load_sweep
from securekd.sweep.summary import Setting, Unit, settings_of, unit_of
from securekd.sweep.table import read_table

# Lines of the plan that are printed; the run folders hold the rest.
_SHOWN = 40


def begin(path: Path, out: Path, *, workers: int | None, backend: str, max_runs: int | None) -> None:
    """Begin the sweep of a file in a new folder."""
    refuse_missing()
    settings, tree = load_sweep(path)
    folder = SweepFolder(out)
    plan = folder.create(settings, tree)
    _carry_out(plan, folder, workers, cast(Backend, backend), max_runs)


def resume(
    out: Path,
    path: Path | None,
    *,
    workers: int | None,
    backend: str,
    max_runs: int | None,
    plugins: Collection[str] = (),
) -> None:
    """Go on with the sweep in a folder; a sweep file, if one is given, must be what it began with.

    Without one, the folder says what is run: code that it names must be among `plugins`.
    """
    refuse_missing()
    folder = SweepFolder(out)
    if path is not None:
        folder.refuse_other(*load_sweep(path))
    plan = folder.plan()
    if path is None:
        refuse_unnamed({name for run in plan.runs for name in run.experiment.plugins()}, plugins, out)
    _carry_out(plan, folder, workers, cast(Backend, backend), max_runs)


def frontier(folder: Path, *, min_accuracy: float | None, max_epsilon: float | None, unit: str | None) -> None:
    """Print the settings of a sweep that reach what was asked for, and commands that run them."""
    sweep = SweepFolder(folder)
    plan = sweep.plan()
    settings = settings_of(read_table(sweep.table))
    chosen = cast(Unit, unit) if unit else unit_of(settings)
    found = reached.frontier(settings, chosen, min_accuracy=min_accuracy, max_epsilon=max_epsilon)
    console = Screen()
    console.print(_frontier_table(found, chosen))
    for setting in found:
        config = sweep.run(setting.runs[0]) / "config.toml"
        say(f"group {setting.group}: securekd run {shlex.quote(str(config))}")
    say(_choosing(cost_of_choice(plan, sweep)))


def _carry_out(
    plan: SweepPlan, folder: SweepFolder, workers: int | None, backend: Backend, max_runs: int | None
) -> None:
    count = workers or _available_cores()
    console = Screen(stderr=True)
    console.print(_plan_table(plan, max_runs))
    try:
        with progress_bar("runs", console) as tell:
            carry_out_sweep(
                plan,
                folder,
                workers=count,
                backend=backend,
                max_runs=max_runs,
                on_progress=_listener(tell, console, plan, count),
            )
    except KeyboardInterrupt:
        say(f"\ninterrupted; go on with: securekd sweep --resume {shlex.quote(str(folder.path))}", err=True)
        raise
    write_outputs(plan, folder)
    _conclude(plan, folder)


def _listener(tell: OnProgress, console: Screen, plan: SweepPlan, workers: int) -> Callable[[Progress], None]:
    runs = {run.key: run for run in plan.runs}
    told = False

    def listen(progress: Progress) -> None:
        nonlocal told
        tell("runs", progress.done, progress.total)
        last = progress.last
        if last is None:
            return
        if last.failure is not None:
            console.print(f"{last.key} ({_named(runs[last.key])}): {last.failure.error}")
        elif not told and progress.done < progress.total:
            told = True
            left = math.ceil((progress.total - progress.done) / workers)
            console.print(
                f"the first run took {numbers.duration(last.seconds)}: about "
                f"{numbers.duration(left * last.seconds)} for the others"
            )

    return listen


def _conclude(plan: SweepPlan, folder: SweepFolder) -> None:
    failures = [(run, failure) for run in plan.runs if (failure := folder.failure(run)) is not None]
    done = sum((folder.run(run.key) / "result.json").exists() for run in plan.runs)
    say(f"{done} of {len(plan.runs)} runs have a result")
    if done:
        say(_choosing(cost_of_choice(plan, folder)))
    say(f"table: {folder.table}\npage: {folder.page}")
    broken = [run.key for run, failure in failures if failure.kind == "promise"]
    if broken:
        raise PromiseError(f"more was found than was promised in {', '.join(broken)}; {folder.page} says what")
    failed = [run.key for run, failure in failures if failure.kind == "failed"]
    if failed:
        raise RunError(
            f"{len(failed)} run(s) failed: {', '.join(failed[:5])}; try them again with: "
            f"securekd sweep --resume {shlex.quote(str(folder.path))}"
        )
    if failures and not done:
        raise InputError(f"no run has a result; of {failures[0][0].key} it is said: {failures[0][1].error}")


def _plan_table(plan: SweepPlan, max_runs: int | None) -> Table:
    shown = plan.runs[:max_runs]
    table = Table("run", "setting", "seed", "strategy", "aggregation", "asks for", title=f"{len(shown)} runs")
    for run in shown[:_SHOWN]:
        experiment = run.experiment
        table.add_row(
            run.key, _named(run), str(run.seed), experiment.strategy, experiment.aggregation, _asks(experiment)
        )
    if len(shown) > _SHOWN:
        table.add_row("…", f"{len(shown) - _SHOWN} more", "", "", "", "")
    return table


def _named(run: PlannedRun) -> str:
    axes = ", ".join(
        f"{k.rpartition('.')[2]}={v}" for k, v in run.point.items() if k not in ("strategy", "aggregation")
    )
    return axes if run.role == "point" else f"{axes} ({run.role})".strip()


def _asks(experiment: Experiment) -> str:
    """What a run is to promise; its record says what it proved."""
    privacy, said = experiment.privacy, []
    if privacy.dp_sgd:
        said.append(f"ε={privacy.epsilon:g}, δ={privacy.delta:g} for an example")
    if privacy.client_epsilon is not None:
        said.append(f"ε={privacy.client_epsilon:g}, δ={privacy.client_delta:g} for a client")
    if privacy.noise == "seeded":
        return "nothing: its noise is seeded"
    return "; ".join(said) or "nothing"


def _frontier_table(settings: tuple[Setting, ...], unit: Unit) -> Table:
    table = Table("group", "setting", f"ε, one {unit}", "accuracy", "interval", "upload", "Pareto")
    for s in settings:
        axes = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in s.axes.items())
        found = s.epsilon[unit]
        table.add_row(
            str(s.group),
            f"{s.series}{f'; {axes}' if axes else ''}",
            "none" if found is None else numbers.epsilon(found),
            numbers.percent(s.accuracy.mean),
            numbers.percent_range(s.accuracy.low, s.accuracy.high) if s.accuracy.runs > 1 else "one seed",
            numbers.size(s.upload),
            "yes" if s.pareto else "",
        )
    return table


def _choosing(choice: Choice) -> str:
    runs = "run was" if choice.looked == 1 else "runs were"
    looked = f"{choice.looked} {runs} looked at, and choosing the best of them is itself a release"
    if choice.epsilon is None:
        return f"{looked}; no bound is given for it: {choice.why}"
    return f"{looked}: ε = {numbers.epsilon(choice.epsilon)} for one example at δ = {choice.delta:g}, if {choice.why}"


def _available_cores() -> int:
    import joblib

    return int(joblib.cpu_count())
