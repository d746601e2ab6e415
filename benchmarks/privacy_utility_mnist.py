"""What privacy costs on MNIST: one student of 250 private clients, and of 10 clients with private examples.

Run: OMP_NUM_THREADS=1 python benchmarks/privacy_utility_mnist.py [--seeds 5] [--quick] [--report]

Settings of the baselines are tuned first, on rows cut from the training files; figures are taken on the official
test set. Data: $SECUREKD_DATA/mnist, or shared/data/mnist beside the repository. Writes after each part, and goes on
where it stopped, in benchmarks/results/privacy_utility_mnist.json; .md and .svg come from that.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import privacy_utility_clients as clients
import privacy_utility_examples as examples
import torch
from privacy_utility_common import final_split, load, tuning_split
from privacy_utility_report import markdown, plot

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed, ε = 1 alone, in a file of its own")
    parser.add_argument("--report", action="store_true", help="write table and plot of what is there, and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / ("privacy_utility_mnist_quick.json" if options.quick else "privacy_utility_mnist.json")
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"machine": machine(), "runs": {}}
    if not options.report:
        measure(record, path, 1 if options.quick else options.seeds, options.quick)
    path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
    plot(record, path.with_suffix(".svg"))
    print(markdown(record))


def measure(record: dict[str, Any], path: Path, seeds: int, quick: bool) -> None:
    """Fill `record` with what it lacks, and save it after each part."""
    data = load()
    of_clients = (1.0,) if quick else clients.EPSILONS
    of_examples = (1.0,) if quick else examples.EPSILONS

    def fill(place: dict[str, Any], name: str, make: Callable[[], object]) -> None:
        if name in place:
            return
        started = time.process_time()
        place[name] = make()
        record.setdefault("cpu_seconds", {})[f"{len(record['runs'])} {name}"] = time.process_time() - started
        path.write_text(json.dumps(record, indent=1) + "\n")

    plain = tuple(e for e in examples.PLAIN_EPSILONS if e in of_examples)
    if not {"clients", "examples", "examples_plain"} <= record.get("tuned", {}).keys():
        split, tuned = tuning_split(data), record.setdefault("tuned", {})
        fill(tuned, "clients", lambda: clients.tune(split, of_clients))
        fill(tuned, "examples", lambda: examples.tune(split, of_examples))
        grids = examples.PLAIN_CLIENT_GRID, examples.PLAIN_CENTRAL_GRID
        fill(tuned, "examples_plain", lambda: examples.tune(split, plain, *grids))
        del split
    tuned = record["tuned"]
    for seed in range(seeds):
        run, split = record["runs"].setdefault(str(seed), {}), final_split(data, seed)
        for kind in clients.ALPHAS:
            fill(run, kind, lambda s=split, k=kind, n=seed: clients.measure(s, k, n, of_clients, tuned["clients"]))
        fill(run, "examples", lambda s=split, n=seed: examples.measure(s, n, of_examples, tuned["examples"]))
        fill(run, "examples_plain", lambda s=split, n=seed: examples.measure(s, n, plain, tuned["examples_plain"]))
        fill(run, "yardsticks", lambda s=split: clients.yardsticks(s))
        if seed == 0:
            fill(record, "masked_session", lambda s=split: clients.masked_session(s, 0))


def machine() -> dict[str, str]:
    packages = ("numpy", "scipy", "torch", "opacus", "dp-accounting")
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
