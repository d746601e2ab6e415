"""Secure aggregation side by side: what this machine can do at best, this library, and Flower's SecAgg+.

Everything is measured in one run, in CPU time, a session in one process, and shown as ratios. The limit is the sum of
what an authenticated protocol can not do without: k + 1 keystreams added to the vector, k key agreements, the
signatures that are verified, one stochastic rounding, one hash of the vector, and the sharing of two secrets; at the
server, an addition and a tag for each input, a keystream and a key agreement for each survivor and for each neighbour
of each dropout, and a signature for each message that goes out or is passed on.

    python -m venv bench && bench/bin/pip install numpy cryptography matplotlib flwr
    bench/bin/python benchmarks/secure_aggregation.py            # everything: three quarters of an hour of one core
    bench/bin/python benchmarks/secure_aggregation.py --quick    # small sizes: a minute

Without `flwr` the comparison is left out, without `matplotlib` the plot, each with a word. Sizes that do not fit the
time allowed are left out too, and the results say so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "protocols")]

from secure_aggregation_cost import Cost, limit  # noqa: E402
from secure_aggregation_flower import FlowerMissingError, flower_session, flower_version  # noqa: E402
from secure_aggregation_ours import our_session  # noqa: E402
from secure_aggregation_report import markdown, plot  # noqa: E402

from securekd_protocols import GraphDemand, choose_graph, recommended_threshold  # noqa: E402

CLIENTS, LENGTHS = (8, 32, 100, 1000), (10_000, 100_000, 1_000_000)
OUR_LIMIT_S, FLOWER_LIMIT_S = 420.0, 500.0  # CPU seconds that one session may take, as estimated beforehand
T = TypeVar("T")
REPEATS = 5  # of each up to 100 clients, in turns, of which the least is taken


@dataclass(frozen=True)
class Case:
    """One session: clients, neighbours of each (n − 1 in the complete graph), threshold, length, silent clients."""

    clients: int
    degree: int
    threshold: int
    length: int
    dropouts: int

    @property
    def regular(self) -> bool:
        return self.degree < self.clients - 1


def case_of(clients: int, length: int, dropping: bool) -> Case:
    """Complete up to 32 clients; k-regular from 100 on, for a tenth of colluders and of dropouts."""
    dropouts = max(1, clients // 10) if dropping else 0
    if clients < 100:
        return Case(clients, clients - 1, recommended_threshold(clients), length, dropouts)
    choice = choose_graph(GraphDemand(clients, clients // 10, clients // 10))
    return Case(clients, choice.degree, choice.threshold, length, dropouts)


def measure(case: Case, with_flower: bool) -> dict[str, object]:
    """All rows of one case; each session in a new process, so that none finds what another has left of the memory."""
    row: dict[str, object] = {"case": asdict(case), "load": os.getloadavg()[0]}
    masks = case.clients * (case.degree + 2) + case.dropouts * case.degree
    repeats = REPEATS if case.clients <= 100 else 1
    estimate = masks * case.length * 1.1e-9 + case.clients * case.degree * 0.6e-3
    works: list[Callable[[Case], dict[str, Cost]]] = []
    if estimate > OUR_LIMIT_S:
        row["limit"], row["ours"] = asdict(limit(case)), f"left out: about {estimate:.0f} s"
    else:
        works.append(limit_and_ours)
    if not with_flower:
        row["flower"] = "left out: flwr is not installed, or was not asked for"
    elif (estimate := flower_estimate(case, masks)) > FLOWER_LIMIT_S:
        row["flower"] = f"left out for Flower: about {estimate:.0f} s"
    else:
        works.append(flowers)
    found = [{k: v for work in works for k, v in apart(work, case).items()} for _ in range(repeats)]
    return row | {name: asdict(_least([costs[name] for costs in found])) for name in found[0]}


def apart(work: Callable[[Case], T], case: Case) -> T:
    """Do something in a new process.

    Python's cyclic collector is off there: with every client in one process it would walk all of them again and again,
    and charge it to whoever is at work.
    """
    with get_context("spawn").Pool(1, gc.disable) as pool:
        return pool.apply(work, (case,))


def limit_and_ours(case: Case) -> dict[str, Cost]:
    """What nothing can do without, and this library's session."""
    return {"limit": limit(case), "ours": our_session(case)}


def flowers(case: Case) -> dict[str, Cost]:
    """Flower's session."""
    return {"flower": flower_session(case)}


def _least(costs: list[Cost]) -> Cost:
    """The least of each side's times: what else goes on at a machine only adds to them. Bytes are the same in all."""
    client_s, server_s = (min(getattr(cost, side) for cost in costs) for side in ("client_s", "server_s"))
    return replace(costs[0], client_s=client_s, server_s=server_s)


def flower_estimate(case: Case, masks: int) -> float:
    """CPU seconds: masks, the recovery of one secret for each client (quadratic in the threshold), key agreements."""
    return masks * case.length * 16e-9 + case.clients * case.threshold**2 * 4e-4 + case.clients * case.degree * 2e-3


def machine() -> dict[str, str]:
    """What the figures belong to; how busy it was stands with each row."""
    names = ["numpy", "cryptography", "flwr", "matplotlib"]
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    cores = str(os.cpu_count())
    return {"python": platform.python_version(), "system": platform.system(), "cpu": cpu, "cores": cores, **versions}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="n = 8 and 32, d = 10^4 and 10^5")
    parser.add_argument("--no-flower", action="store_true", help="leave Flower out")
    parser.add_argument("--clients", type=int, nargs="*", help="these numbers of clients only")
    parser.add_argument("--lengths", type=int, nargs="*", help="these lengths only")
    parser.add_argument("--name", help="stem of the results' files; secure_aggregation, or with _quick")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the results go")
    chosen = parser.parse_args()
    clients = chosen.clients or (CLIENTS[:2] if chosen.quick else CLIENTS)
    lengths = chosen.lengths or (LENGTHS[:2] if chosen.quick else LENGTHS)
    with_flower = not chosen.no_flower
    if with_flower:
        try:
            print("Flower", flower_version())
        except FlowerMissingError as missing:
            print(missing)
            with_flower = False
    rows = []
    for n, d, dropping in product(clients, lengths, (False, True)):
        row = measure(case_of(n, d, dropping), with_flower)
        print(json.dumps(row), flush=True)
        rows.append(row)
    stem = chosen.name or ("secure_aggregation_quick" if chosen.quick else "secure_aggregation")
    chosen.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "rows": rows}
    (chosen.out / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    (chosen.out / f"{stem}.md").write_text(markdown(results))
    plot(results, chosen.out / f"{stem}.svg")


if __name__ == "__main__":
    main()
