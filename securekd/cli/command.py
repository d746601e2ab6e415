"""The command `securekd`: arguments in, exit codes out; everything that it does is Python API first.

Exit codes: 0 done; 1 failed while running; 2 refused input; 3 more was found than was promised; 130 interrupted.
"""

import io
import sys
import traceback
from pathlib import Path

import click

from securekd.cli import terminal
from securekd.cli.audit import audit
from securekd.errors import SecurekdError, SettingError
from securekd.files import next_folder

INTERRUPTED = 130

RUN_HELP = """Run a federated distillation experiment: train, release, aggregate, distil, audit, report.

Without CONFIG, five clients share scikit-learn's handwritten digits.

\b
Examples:
  securekd run
  securekd run --dry-run
  securekd run --set privacy.epsilon=4 --set rounds=1 --out runs/eps4
  securekd run examples/mnist.toml --out runs/mnist
  securekd run --resume runs/mnist
"""


SWEEP_HELP = """Run an experiment at every point of the axes in SWEEP, and write a table and a page of all of them.

Prints the plan first. DIR then holds a folder for each run, sweep.parquet, sweep.html and plots/. With --resume, SWEEP
may be left out; a file that changed since is refused.

\b
Examples:
  securekd sweep examples/sweep_digits.toml
  securekd sweep examples/sweep_digits.toml --max-runs 4 --out sweeps/first
  securekd sweep --resume sweeps/first --workers 2
"""

FRONTIER_HELP = """Print the settings of the sweep in DIR that reach what is asked for, each as a command that runs it.

They reach an accuracy (most private first) or stay within a proven ε (most accurate first).

\b
Examples:
  securekd frontier sweeps/first --min-accuracy 0.9
  securekd frontier sweeps/first --max-epsilon 3
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="securekd")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Privacy-first federated distillation: run experiments, and see what they prove and what they leak."""
    del debug  # read by `main`, which handles every error


@cli.command(help=RUN_HELP)
@click.argument("config", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting (a TOML value or a bare word)."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder; it must not exist. Default: the next runs/run-N."
)
@click.option(
    "--dry-run", is_flag=True, help="Print the split, the guarantee and the bytes; train nothing, write nothing."
)
@click.option(
    "--resume", "resumed", type=click.Path(path_type=Path, file_okay=False), help="Finish the run in this folder."
)
@click.option(
    "--plugin", "plugins", multiple=True, metavar="MODULE:ATTRIBUTE", help="Code that the resumed folder may name."
)
@click.option("--json", "as_json", is_flag=True, help="Print the record (or the plan) as JSON on standard output.")
def run(
    config: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    resumed: Path | None,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """See RUN_HELP."""
    from securekd.cli import console

    if resumed is not None:
        if config is not None or overrides or out is not None or dry_run:
            raise SettingError(
                "--resume takes its settings from the run's folder; drop CONFIG, --set, --out and --dry-run"
            )
        console.resume(resumed, plugins=plugins, as_json=as_json)
        return
    _refuse_plugins(plugins)
    from securekd.settings.config import load_experiment

    experiment = load_experiment(config, overrides)
    if dry_run:
        console.dry_run(experiment, as_json=as_json)
    else:
        console.run(experiment, out or next_folder(Path("runs")), as_json=as_json)


def _refuse_plugins(plugins: tuple[str, ...]) -> None:
    if plugins:
        raise SettingError("--plugin goes with --resume; settings of your own may name code without it: drop it")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def report(folder: Path) -> None:
    """Write FOLDER/report.html anew from FOLDER/result.json, or an audit's audit.html from its audit.json.

    \b
    Example:
      securekd report runs/run-1
    """
    from securekd.files import is_there
    from securekd.report import write_audit_report, write_report

    write = write_audit_report if is_there(folder / "audit.json") else write_report
    terminal.say(f"report: {write(folder)}")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the guarantees as JSON on standard output.")
def account(folder: Path, as_json: bool) -> None:
    """Recompute every ε of the run in FOLDER from its ledger alone.

    Exit code 3 if the run's record says otherwise.

    \b
    Example:
      securekd account runs/run-1
    """
    from securekd.cli import console

    console.account(folder, as_json=as_json)


@cli.command()
@click.option("--markdown", is_flag=True, help="As a Markdown table, for documents.")
@click.option(
    "--sweep", "of_sweep", is_flag=True, help="What a sweep file may say, instead of an experiment's settings."
)
def config(markdown: bool, of_sweep: bool) -> None:
    """Print every setting with its default, range and meaning.

    \b
    Examples:
      securekd config
      securekd config --sweep
    """
    from securekd.cli import console

    console.settings(markdown=markdown, sweep=of_sweep)


@cli.command(help=SWEEP_HELP)
@click.argument("sweep_file", metavar="[SWEEP]", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The sweep's folder; it must not exist. Default: the next sweeps/sweep-N.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Runs at a time. Default: one for each core.")
@click.option(
    "--backend",
    type=click.Choice(["local", "ray", "dask"]),
    default="local",
    show_default=True,
    help="Where runs are carried out: processes here, or the cluster that RAY_ADDRESS or DASK_SCHEDULER_ADDRESS names.",
)
@click.option(
    "--resume", "resumed", type=click.Path(path_type=Path, file_okay=False), help="Go on with the sweep in this folder."
)
@click.option(
    "--plugin", "plugins", multiple=True, metavar="MODULE:ATTRIBUTE", help="Code that the resumed folder may name."
)
@click.option("--max-runs", type=click.IntRange(min=1), help="Only the first so many runs of the plan, over all calls.")
def sweep(
    sweep_file: Path | None,
    out: Path | None,
    workers: int | None,
    backend: str,
    resumed: Path | None,
    plugins: tuple[str, ...],
    max_runs: int | None,
) -> None:
    """See SWEEP_HELP."""
    from securekd.cli import sweep_console as console

    if resumed is None:
        _refuse_plugins(plugins)
        if sweep_file is None:
            raise SettingError("give a sweep file, or a sweep's folder with --resume")
        folder = out or next_folder(Path("sweeps"), "sweep")
        console.begin(sweep_file, folder, workers=workers, backend=backend, max_runs=max_runs)
        return
    if out is not None:
        raise SettingError("--resume goes on in the sweep's own folder; drop --out")
    console.resume(resumed, sweep_file, workers=workers, backend=backend, max_runs=max_runs, plugins=plugins)


@cli.command(help=FRONTIER_HELP)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--min-accuracy", type=click.FloatRange(0, 1), help="Mean accuracy over seeds at least, 0 to 1.")
@click.option("--max-epsilon", type=click.FloatRange(min=0), help="Proven ε at most.")
@click.option(
    "--unit", type=click.Choice(["example", "client"]), help="Whose ε. Default: an example's, if any run has one."
)
def frontier(folder: Path, min_accuracy: float | None, max_epsilon: float | None, unit: str | None) -> None:
    """See FRONTIER_HELP."""
    from securekd.cli import sweep_console as console

    console.frontier(folder, min_accuracy=min_accuracy, max_epsilon=max_epsilon, unit=unit)


cli.add_command(audit)


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    debug = "--debug" in sys.argv[1:]
    if str(Path.cwd()) not in sys.path:
        sys.path.append(
            str(Path.cwd())
        )  # a module:attribute of the user's stands there; last, so that it hides nothing
    with terminal.streams():
        code = _carry_out(debug)
    if code:
        sys.exit(code)


def _carry_out(debug: bool) -> int:
    try:
        returned = cli(standalone_mode=False)
        return returned if isinstance(returned, int) else 0
    except click.ClickException as error:
        shown = io.StringIO()  # it quotes what was typed
        error.show(shown)
        terminal.say(shown.getvalue().rstrip("\n"), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.say("interrupted; finished phases are kept", err=True)
        return INTERRUPTED
    except SecurekdError as error:
        _tell(str(error), debug)
        return error.exit_code
    except Exception as error:
        _tell(f"{type(error).__name__}: {error} (unexpected; --debug shows where)", debug)
        return 1


def _tell(message: str, debug: bool) -> None:
    if debug:
        terminal.say(traceback.format_exc().rstrip("\n"), err=True)
    terminal.say("error: " + " ".join(message.split()), err=True)
