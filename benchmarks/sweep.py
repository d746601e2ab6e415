"""What a sweep costs beside its runs, what a second worker saves, and whether backends give one table.

Four times the same sweep, in seeded noise so that tables can be compared, each by the command and on the clock from
its start to its page: with one worker, with two, on each cluster library that is installed (two workers), and with one
worker once more when all shared work is done already. The last is held against the same runs one after the other in
one Python process that has everything imported and finds the shared work done too: what is left is what the sweep adds.

    python benchmarks/sweep.py                     # all of examples/sweep_digits.toml: some twenty minutes of two cores
    python benchmarks/sweep.py --max-runs 4        # a minute or two, and says little
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from securekd.runner import run
from securekd.sweep.folder import SweepFolder
from securekd.sweep.settings import load_sweep, merged
from securekd.sweep.table import read_table

HERE = Path(__file__).resolve().parent
CLUSTERS = ("ray", "dask")


def begun(sweep: Path, out: Path) -> SweepFolder:
    """A sweep's folder, in which nothing is carried out yet."""
    settings, tree = load_sweep(sweep)
    folder = SweepFolder(out)
    folder.create(settings, merged(tree, {"privacy": {"noise": "seeded"}}))
    return folder


def carried_out(folder: SweepFolder, *, workers: int, backend: str, max_runs: int | None) -> float:
    """Seconds that the command takes for the sweep in a folder.

    Raises:
        CalledProcessError: it did not succeed.
    """
    limit = [] if max_runs is None else ["--max-runs", str(max_runs)]
    command = [sys.executable, "-m", "securekd", "sweep", "--resume", str(folder.path)]
    begin = time.monotonic()
    subprocess.run([*command, "--workers", str(workers), "--backend", backend, *limit], check=True)
    return time.monotonic() - begin


def one_after_the_other(folder: SweepFolder, shared: Path, out: Path, max_runs: int | None) -> float:
    """Seconds of the same runs in this process, the sum over runs; one that is not counted goes before them."""
    runs, spent = folder.plan().runs[:max_runs], 0.0
    run(runs[0].experiment, out / "first", shared=shared)
    for planned in runs:
        begin = time.monotonic()
        run(planned.experiment, out / planned.key, shared=shared)
        spent += time.monotonic() - begin
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE.parent / "examples" / "sweep_digits.toml")
    parser.add_argument("--max-runs", type=int, help="only so many of its runs")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sweep.md", help="where the results go")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the sweep's workers have it
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        seconds: dict[str, float] = {}
        tables: dict[str, pd.DataFrame] = {}
        clusters = [backend for backend in CLUSTERS if importlib.util.find_spec(backend)]
        for name, workers, backend in (
            ("one worker", 1, "local"),
            ("two workers", 2, "local"),
            *((f"two workers on {backend}", 2, backend) for backend in clusters),
        ):
            folder = begun(chosen.sweep, Path(place) / name.replace(" ", "-"))
            seconds[name] = carried_out(folder, workers=workers, backend=backend, max_runs=chosen.max_runs)
            tables[name] = read_table(folder.table)
        first = SweepFolder(Path(place) / "one-worker")
        warm = begun(chosen.sweep, Path(place) / "warm")
        shutil.copytree(first.shared, warm.shared)
        seconds["one worker, shared work done"] = carried_out(
            warm, workers=1, backend="local", max_runs=chosen.max_runs
        )
        tables["one worker, shared work done"] = read_table(warm.table)
        apart = Path(place) / "apart"
        alone = one_after_the_other(warm, warm.shared, apart, chosen.max_runs)
    text = report(chosen.sweep, seconds, tables, alone, load, clusters)
    chosen.out.write_text(text, encoding="utf-8")
    print(text)


def report(
    sweep: Path,
    seconds: dict[str, float],
    tables: dict[str, pd.DataFrame],
    alone: float,
    load: float,
    clusters: list[str],
) -> str:
    """The results as a page."""
    one, runs = tables["one worker"], tables["one worker"]["run"].nunique()
    same = {name: table.equals(one) for name, table in tables.items()}
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "joblib", *clusters))
    overhead = seconds["one worker, shared work done"] / alone - 1
    left_out = [name for name in CLUSTERS if name not in clusters]
    lines = [
        "# A sweep beside its runs",
        "",
        f"Made by `benchmarks/sweep.py` from `examples/{sweep.name}` with seeded noise: {runs} runs, on "
        f"{cpu or platform.processor()}, {os.cpu_count()} cores, load average {load:.1f} at the beginning, Python "
        f"{platform.python_version()}, {versions}. Seconds on the clock, from the command's start to its page.",
        *([f"Not installed, and left out: {', '.join(left_out)}."] if left_out else []),
        "",
        "| sweep | seconds | of one worker's | the same table |",
        "| --- | --: | --: | --- |",
        *(
            f"| {name} | {spent:.1f} | {spent / seconds['one worker']:.2f} | {'yes' if same[name] else '**no**'} |"
            for name, spent in seconds.items()
        ),
        f"| the same runs in one process, shared work done | {alone:.1f} | {alone / seconds['one worker']:.2f} | |",
        "",
        f"Overhead of the sweep over the sum of its runs, shared work excluded: **{100 * overhead:.1f} %**. In it are "
        "the command's start, the imports, the plan, the table, the page and the plots; the runs beside it had "
        "everything imported.",
        "",
    ]
    return "\n".join(lines)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main()
