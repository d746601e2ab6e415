"""How fast membership scores and one-run bounds come, in how much memory, and beside peers where they are installed.

Run: OMP_NUM_THREADS=1 python benchmarks/attacks.py [--repeats 7] [--quick]

50,000 records, 16 and 256 reference models, signals in float32. LiRA online with each variance, RMIA online and offline
(a population of 10,000 records more), one-run bounds at 100,000 canaries. A figure is CPU time of the process, the
median of the repeats. Memory is what numpy holds at the peak beyond the input, in units of the signals (the float32
matrix, for RMIA the population's too), measured in a run of its own; the signals' own share, 1, is added.

Only records that enough references hold and enough do not are scored (`covered`): of 16 coins some show one side alone.

Peers are measured where they are installed beside numpy and scipy; this file needs nothing else of securekd than
`securekd_attacks`, so it runs in a peer's own virtual environment with PYTHONPATH=attacks. Results of peers that are
not installed are left as an earlier run wrote them.

Writes benchmarks/results/attacks.json and .md.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from securekd.report import numbers
from securekd_attacks import bounds, covered, lira, rmia

RESULTS = Path(__file__).parent / "results"
RECORDS, POPULATION, CANARIES = 50_000, 10_000, 100_000
REFERENCES = (16, 256)
SECONDS, MEMORY, ONE_RUN_SECONDS = 0.5, 1.5, 1.0
"""What is asked for: CPU seconds of scoring, peak memory over the signals' own, CPU seconds of one-run bounds."""

VARIANCES: tuple[lira.Variance, ...] = ("per_example", "residual", "pooled")


@dataclass(frozen=True)
class Scoring:
    """One way of scoring: CPU seconds, and peak memory over the signals' own, the signals included."""

    references: int
    way: str
    seconds: float
    memory: float


@dataclass(frozen=True)
class Bound:
    """One bound at 100,000 canaries: CPU seconds, and what it says."""

    way: str
    guesses: int
    seconds: float
    epsilon_lower: float


@dataclass(frozen=True, eq=False)
class Case:
    """A target and reference models on the same records: log-odds of the true label."""

    target: np.ndarray
    references: np.ndarray
    inclusion: np.ndarray
    population: np.ndarray
    population_references: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the median is taken")
    parser.add_argument("--quick", action="store_true", help="one run on a tenth of the records, and nothing written")
    options = parser.parse_args()
    repeats, records = (1, RECORDS // 10) if options.quick else (options.repeats, RECORDS)
    scoring = [row for references in REFERENCES for row in score(make_case(references, records), repeats)]
    one_run = bound(repeats)
    written = RESULTS / "attacks.json"
    before = json.loads(written.read_text(encoding="utf-8"))["peers"] if written.exists() else []
    fresh = peers()
    kept = [row for row in before if row["peer"] not in {each["peer"] for each in fresh}] + fresh
    text = markdown(scoring, one_run, kept)
    print(text)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        record = {
            "records": RECORDS,
            "population": POPULATION,
            "canaries": CANARIES,
            "machine": machine(),
            "scoring": [asdict(row) for row in scoring],
            "one_run": [asdict(row) for row in one_run],
            "peers": kept,
        }
        written.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (RESULTS / "attacks.md").write_text(text, encoding="utf-8")


def make_case(references: int, records: int) -> Case:
    """Normal log-odds about each record's own mean, one higher with the record than without."""
    rng = np.random.default_rng(0)
    base = 2 * rng.standard_normal(records + POPULATION, dtype=np.float32)
    inclusion = rng.random((references, records), dtype=np.float32) < 0.5
    signals = rng.standard_normal((references, records + POPULATION), dtype=np.float32)
    signals += base
    signals[:, :records] += inclusion
    target = base + rng.standard_normal(records + POPULATION, dtype=np.float32)
    target[:records] += rng.random(records) < 0.5
    kept = np.append(np.flatnonzero(covered(inclusion, 2, 2)), np.arange(records, records + POPULATION))
    rows = kept[kept < records]
    return Case(
        target=target[rows],
        references=np.ascontiguousarray(signals[:, rows]),
        inclusion=np.ascontiguousarray(inclusion[:, rows]),
        population=target[records:],
        population_references=np.ascontiguousarray(signals[:, records:]),
    )


def score(case: Case, repeats: int) -> list[Scoring]:
    """All ways on one case."""
    logs = [
        -np.logaddexp(np.float32(0), -part)
        for part in (case.target, case.references, case.population, case.population_references)
    ]
    ways: dict[str, Callable[[], object]] = {
        f"LiRA, online, {variance}": lambda variance=variance: lira.scores(
            case.target, case.references, case.inclusion, variance, "online"
        )
        for variance in VARIANCES
    }
    for mode in ("online", "offline"):
        ways[f"RMIA, {mode}"] = lambda mode=mode: rmia.scores(
            logs[0], logs[1], case.inclusion, logs[2], logs[3], mode=mode
        )
    held = {
        way: case.references.nbytes + (case.population_references.nbytes if way.startswith("RMIA") else 0)
        for way in ways
    }
    return [
        Scoring(len(case.references), way, cpu_seconds(action, repeats), 1.0 + peak(action) / held[way])
        for way, action in ways.items()
    ]


def bound(repeats: int) -> list[Bound]:
    """One-run bounds on what a Gaussian with μ = 1 gives away."""
    found = []
    for guesses, correct in ((1000, 958), (CANARIES, 69_146)):
        for way, action in (("one_run", bounds.one_run), ("one_run_fdp", bounds.one_run_fdp)):
            call = lambda action=action, guesses=guesses, correct=correct: action(  # noqa: E731
                CANARIES, guesses, correct, delta=1e-9
            )
            found.append(Bound(way, guesses, cpu_seconds(call, repeats), call().epsilon_lower))
    return found


def peers() -> list[dict[str, object]]:
    """Whatever of the peers is installed here; none is needed."""
    found: list[dict[str, object]] = []
    for name, measure in (("jax-privacy", jax_privacy),):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found += [{"peer": name, "version": version, **row} for row in measure()]
    return found


def jax_privacy() -> list[dict[str, object]]:
    """Its one-run bounds from scores, thresholds corrected by Bonferroni (its default) or given."""
    from jax_privacy import auditing
    from jax_privacy.auditing import Bonferroni, CanaryScoreAuditor, Explicit

    rng = np.random.default_rng(0)
    inside = rng.random(CANARIES) < 0.5
    seen = rng.standard_normal(CANARIES) + inside
    threshold = float(np.sort(seen)[-1000])
    found: list[dict[str, object]] = []
    for name, method in (("one-run", "epsilon_one_run"), ("f-DP one-run", "epsilon_one_run_fdp")):
        for how, strategy in (("all thresholds", Bonferroni()), ("1,000 guesses", Explicit(threshold))):
            auditing._gaussian_dp_blow_up_inverse.cache_clear()  # it remembers, and would answer from memory
            start = time.process_time()
            auditor = CanaryScoreAuditor(seen[inside], seen[~inside])
            epsilon = float(getattr(auditor, method)(0.05, 1e-9, threshold_strategy=strategy))
            spent = time.process_time() - start
            what = f"{name}, {CANARIES:,} canaries, {how}"
            found.append({"what": what, "seconds": spent, "epsilon_lower": epsilon})
    return found


def cpu_seconds(action: Callable[[], object], repeats: int) -> float:
    action()  # the first one allocates
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        spent.append(time.process_time() - start)
    return median(spent)


def peak(action: Callable[[], object]) -> int:
    """Bytes that numpy and Python hold at most beyond what they held before."""
    tracemalloc.start()
    action()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return highest


def markdown(scoring: list[Scoring], one_run: list[Bound], others: list[dict[str, object]]) -> str:
    lines = [
        "# Membership scores and one-run bounds: CPU time and memory",
        "",
        f"{RECORDS:,} records, reference signals in float32, one thread. Memory is the peak over the size of the "
        "reference signals, which are counted themselves. `python benchmarks/attacks.py` makes this anew.",
        "",
        f"Asked for: at most {SECONDS:g} s and memory of at most {MEMORY:g} at either number of references, "
        f"one-run at most {ONE_RUN_SECONDS:g} s.",
        "",
        "| references | scoring | CPU s | memory |",
        "| --: | --- | --: | --: |",
        *(f"| {r.references} | {r.way} | {r.seconds:.3f} | {r.memory:.2f} |" for r in scoring),
        "",
        f"## One-run bounds, {CANARIES:,} canaries",
        "",
        "Counts as a Gaussian mechanism with μ = 1 gives them, δ = 1e-9 (its ε is 6.17).",
        "",
        "| bound | guesses | CPU s | ε_lower |",
        "| --- | --: | --: | --: |",
        *(f"| {b.way} | {b.guesses:,} | {b.seconds:.3f} | {numbers.epsilon_lower(b.epsilon_lower)} |" for b in one_run),
        "",
        "`one_run_fdp` holds only if the mechanism's trade-off is Gaussian.",
        "",
        "## Peers",
        "",
        *(peer_lines(others) if others else ["None was installed where this was run."]),
        "",
        ", ".join(f"{name} {value}" for name, value in machine().items()),
        "",
    ]
    return "\n".join(lines)


def _lower(row: dict[str, object]) -> str:
    return numbers.epsilon_lower(float(str(row["epsilon_lower"])))


def peer_lines(others: list[dict[str, object]]) -> list[str]:
    return [
        "Measured in the peer's own virtual environment, δ = 1e-9, from scores (ours above: from counts).",
        "",
        "| peer | what | CPU s | ε_lower |",
        "| --- | --- | --: | --: |",
        *(
            f"| {row['peer']} {row['version']} | {row['what']} | {row['seconds']:.3f} | {_lower(row)} |"
            for row in others
        ),
        "",
        "Other peers (Privacy Meter, LeakPro, PrivacyGuard, TF Privacy) were not measured here: their scoring takes "
        "other input (data frames of means, their own handlers), for which a hook stands in `peers`.",
    ]


def machine() -> dict[str, str]:
    """What the figures belong to."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    packages = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    return {"python": platform.python_version(), "cpu": cpu, "load": load, **packages}


if __name__ == "__main__":
    main()
