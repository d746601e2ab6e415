"""What a step of DP-SGD costs on cached features: in closed form, by Opacus' hooks, by ghost clipping.

Run: OMP_NUM_THREADS=1 python benchmarks/closed_form_dp.py [--blocks 30] [--quick]

All ways train the same linear head on the same features with the same Poisson samples (drawn by the same sampler, and
gathered by the same call) and SGD with momentum; the step without privacy is forward, loss, backward by autograd, and
`torch.optim.SGD`. Blocks of steps of all ways take turns; a figure is CPU time of the process, and a ratio the median
over turns of the ratio to the block without privacy of the same turn, with its quartiles.

Writes benchmarks/results/closed_form_dp.json and .md.
"""

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from securekd.learning.dp.closed_form import Features
from securekd.learning.dp.dp_sgd import DpSgdPlan, train_head, train_with_hooks
from securekd.randomness import Csprng
from securekd.report import numbers

RESULTS = Path(__file__).parent / "results"
BATCH, RATE, LEARNING_RATE, MOMENTUM = 256, 0.01, 0.1, 0.9
SECONDS_IN_A_BLOCK = 0.1
WORDS = {
    "plain": "no privacy (autograd)",
    "closed_form": "DP-SGD, closed form",
    "hooks": "DP-SGD, Opacus' hooks",
    "ghost": "DP-SGD, Opacus' ghost clipping, stock noise",
}

Steps = Callable[[int], None]


@dataclass(frozen=True)
class Case:
    """A linear head on features, at an expected batch of 256."""

    features: int
    classes: int


@dataclass(frozen=True)
class Figure:
    """CPU milliseconds of a step, and its ratio to the step without privacy: median and quartiles over turns."""

    milliseconds: float
    ratio: float
    lower: float
    upper: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=30, help="turns")
    parser.add_argument("--quick", action="store_true", help="three turns, and nothing written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    cases = (Case(768, 100), Case(384, 4))
    found = {case: measure(case, 3 if options.quick else options.blocks) for case in cases}
    text = markdown(found)
    print(text)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "closed_form_dp.md").write_text(text, encoding="utf-8")
        record = {
            "batch": BATCH,
            "sampling_rate": RATE,
            "machine": machine(),
            "cases": [
                asdict(case) | {"steps": {way: asdict(f) for way, f in ways.items()}} for case, ways in found.items()
            ],
        }
        (RESULTS / "closed_form_dp.json").write_text(json.dumps(record, indent=1) + "\n")


def measure(case: Case, turns: int) -> dict[str, Figure]:
    """Every way's cost; the turns of all ways are interleaved."""
    ways = make_ways(case)
    sizes = {way: block_size(steps) for way, steps in ways.items()}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, steps in ways.items():
            taken[way].append(cpu_seconds(steps, sizes[way]) / sizes[way])
    plain = np.array(taken["plain"])
    return {way: Figure(1e3 * float(np.median(each)), *_middle(np.array(each) / plain)) for way, each in taken.items()}


def make_ways(case: Case) -> dict[str, Steps]:
    """A function for each way that trains a head of its own for a number of steps."""
    rng = np.random.default_rng(0)
    count = round(BATCH / RATE)
    values = torch.from_numpy(rng.standard_normal((count, case.features), dtype=np.float32))
    labels = torch.from_numpy(rng.integers(0, case.classes, count))
    makers = {"plain": plain, "closed_form": closed_form, "hooks": hooks, "ghost": ghost}
    return {
        way: make(nn.Sequential(nn.Linear(case.features, case.classes)), values, labels) for way, make in makers.items()
    }


def plain(head: nn.Sequential, values: Tensor, labels: Tensor) -> Steps:
    sgd, stream = torch.optim.SGD(head.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM), Csprng(bytes(32))

    def steps(count: int) -> None:
        for x, y in batches(count, values, labels, stream):
            sgd.zero_grad()
            cross_entropy(head(x), y).backward()
            sgd.step()

    return steps


def closed_form(head: nn.Sequential, values: Tensor, labels: Tensor) -> Steps:
    features, stream = Features.of(values, head), Csprng(bytes(32))

    def steps(count: int) -> None:
        train_head(head, features, labels, plan(count), stream, learning_rate=LEARNING_RATE, momentum=MOMENTUM)

    return steps


def hooks(head: nn.Sequential, values: Tensor, labels: Tensor) -> Steps:
    sgd, stream = torch.optim.SGD(head.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM), Csprng(bytes(32))

    def steps(count: int) -> None:
        train_with_hooks(head, sgd, values, labels, plan(count), stream, micro_batch=2 * BATCH, device="cpu")

    return steps


def ghost(head: nn.Sequential, values: Tensor, labels: Tensor) -> Steps:
    """Opacus' own, with float32 norms and noise from torch's generator: what its users get."""
    module = GradSampleModuleFastGradientClipping(head, max_grad_norm=1.0, use_ghost_clipping=True)
    sgd = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=BATCH,
    )
    loss = DPLossFastGradientClipping(module, sgd, nn.CrossEntropyLoss(reduction="mean"))
    stream = Csprng(bytes(32))

    def steps(count: int) -> None:
        for x, y in batches(count, values, labels, stream):
            sgd.zero_grad()
            loss(module(x), y).backward()
            sgd.step()

    return steps


def batches(count: int, values: Tensor, labels: Tensor, stream: Csprng) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(count):
        rows = torch.from_numpy(stream.poisson_sample(len(labels), RATE))
        yield values.index_select(0, rows), labels.index_select(0, rows)


def plan(steps: int) -> DpSgdPlan:
    return DpSgdPlan(sampling_rate=RATE, steps=steps, noise_multiplier=1.0, clip=1.0)


def block_size(steps: Steps) -> int:
    """As many steps as make a block last long enough to be timed."""
    steps(2)  # the first ones allocate
    return max(2, round(SECONDS_IN_A_BLOCK / (cpu_seconds(steps, 3) / 3)))


def cpu_seconds(steps: Steps, count: int) -> float:
    start = time.process_time()
    steps(count)
    return time.process_time() - start


def _middle(ratios: np.ndarray) -> tuple[float, float, float]:
    lower, median, upper = np.quantile(ratios, (0.25, 0.5, 0.75))
    return float(median), float(lower), float(upper)


def markdown(found: dict[Case, dict[str, Figure]]) -> str:
    lines = [
        "# DP-SGD on cached features: CPU time of a step",
        "",
        f"Expected batch {BATCH}, Poisson sampling at q = {RATE:g}, one thread; ratios to the step without privacy, "
        "with quartiles over turns. `python benchmarks/closed_form_dp.py` makes this anew.",
        "",
    ]
    for case, ways in found.items():
        lines += [
            f"## {case.features} features, {case.classes} classes",
            "",
            "| way | ms | ratio |",
            "| --- | --: | --- |",
        ]
        lines += [
            f"| {WORDS[way]} | {f.milliseconds:.2f} | {f.ratio:.2f} ({numbers.interval(f.lower, f.upper, 2)}) |"
            for way, f in ways.items()
        ]
        lines.append("")
    return "\n".join([*lines, ", ".join(f"{name} {value}" for name, value in machine().items()), ""])


def machine() -> dict[str, str]:
    """What the figures belong to."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    packages = {name: version(name) for name in ("torch", "opacus", "numpy", "cryptography")}
    return {"python": platform.python_version(), "cpu": cpu, "load": load, **packages}


if __name__ == "__main__":
    main()
