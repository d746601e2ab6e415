"""What a sweep costs beside its runs, what a second worker saves, and whether backends give one table.

The same sweep with one worker, with two, and on each cluster library that is installed (two workers), in seeded noise
so that tables can be compared: on the clock, from the start of a new Python process to the finished page. Its runs tell
how long they took themselves, each in its worker, and the folder of shared work how long that took; what is left of
the time of one worker is what the sweep adds.

    python benchmarks/sweep.py                     # all of examples/sweep_digits.toml: a quarter of an hour
    python benchmarks/sweep.py --max-runs 4        # a minute or two, and says little
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from securekd.checkpoint import PhaseStore
from securekd.sweep.execution import Backend, Progress, carry_out_sweep
from securekd.sweep.folder import SweepFolder
from securekd.sweep.page import write_outputs
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


@dataclass(frozen=True)
class Spent:
    """Seconds of one sweep.

    Attributes:
        total: from the start of its process to its page.
        runs: of its runs, each in its worker, shared work included.
        shared: of the work that runs have in common.
    """

    total: float
    runs: float
    shared: float

    @property
    def overhead(self) -> float:
        """What one worker's sweep adds to its runs, as a part of them, shared work excluded."""
        return (self.total - self.runs) / (self.runs - self.shared)


def timed(folder: SweepFolder, workers: int, backend: str, max_runs: int | None) -> Spent:
    """Carry out the sweep in a folder, in a process of its own.

    Raises:
        CalledProcessError: it did not succeed.
    """
    limit = [] if max_runs is None else ["--max-runs", str(max_runs)]
    command = [sys.executable, __file__, "--child", str(folder.path), "--workers", str(workers), "--backend", backend]
    begin = time.monotonic()
    done = subprocess.run([*command, *limit], check=True, stdout=subprocess.PIPE, text=True)
    total = time.monotonic() - begin
    shared = sum(PhaseStore(folder.shared).seconds().values())
    return Spent(total, float(done.stdout.splitlines()[-1]), shared)


def child(folder: SweepFolder, workers: int, backend: Backend, max_runs: int | None) -> None:
    """What `securekd sweep` does, and then the seconds of all runs on a line."""
    spent: list[float] = []

    def listen(progress: Progress) -> None:
        if progress.last is not None:
            spent.append(progress.last.seconds)

    plan = folder.plan()
    carry_out_sweep(plan, folder, workers=workers, backend=backend, max_runs=max_runs, on_progress=listen)
    write_outputs(plan, folder)
    print(sum(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE.parent / "examples" / "sweep_digits.toml")
    parser.add_argument("--max-runs", type=int, help="only so many of its runs")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sweep.md", help="where the results go")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="local", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        child(SweepFolder(chosen.child), chosen.workers, chosen.backend, chosen.max_runs)
        return
    load, spent, tables = os.getloadavg()[0], dict[str, Spent](), dict[str, pd.DataFrame]()
    clusters = [backend for backend in CLUSTERS if importlib.util.find_spec(backend)]
    with tempfile.TemporaryDirectory() as place:
        for name, workers, backend in (
            ("one worker", 1, "local"),
            ("two workers", 2, "local"),
            *((f"two workers on {backend}", 2, backend) for backend in clusters),
        ):
            folder = begun(chosen.sweep, Path(place) / name.replace(" ", "-"))
            spent[name] = timed(folder, workers, backend, chosen.max_runs)
            tables[name] = read_table(folder.table)
            print(name, spent[name], flush=True)
    text = report(chosen.sweep, spent, tables, load, clusters)
    chosen.out.write_text(text, encoding="utf-8")
    print(text)


def report(
    sweep: Path, spent: dict[str, Spent], tables: dict[str, pd.DataFrame], load: float, clusters: list[str]
) -> str:
    """The results as a page."""
    one, table = spent["one worker"], tables["one worker"]
    same = {name: "yes" if found.equals(table) else "**no**" for name, found in tables.items()}
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "joblib", *clusters))
    left_out = [name for name in CLUSTERS if name not in clusters]
    lines = [
        "# A sweep beside its runs",
        "",
        f"Made by `benchmarks/sweep.py` from `examples/{sweep.name}` with seeded noise: {table['run'].nunique()} runs, "
        f"on {cpu or platform.processor()}, {os.cpu_count()} cores, load average {load:.1f} at the beginning, Python "
        f"{platform.python_version()}, {versions}. Seconds on the clock, from the start of a process to its page.",
        *([f"Not installed, and left out: {', '.join(left_out)}."] if left_out else []),
        "",
        "| sweep | seconds | of one worker's | the same table |",
        "| --- | --: | --: | --- |",
        *(f"| {name} | {s.total:.1f} | {s.total / one.total:.2f} | {same[name]} |" for name, s in spent.items()),
        "",
        f"With one worker the runs took {one.runs:.1f} s, of which {one.shared:.1f} s went into work that they share. "
        f"Overhead of the sweep over the sum of its runs, shared work excluded: **{100 * one.overhead:.1f} %**. In it "
        "are the start of the process and of its worker, the plan, the table, the page and the plots.",
        "",
    ]
    return "\n".join(lines)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main()
