"""Noise multipliers and ε of DP-SGD beside a reference, at 256 points: is the noise as small as it can be?

At each point (sampling rate, steps, ε, δ) the toolkit's noise multiplier is divided by the smallest that is enough by
the reference, and the ε that it reports for that noise by the reference's. The reference is the contour integral
through the saddle point (`securekd.privacy.saddle_point`), which is itself compared with the exact Gaussian curve where
every example is in every step; for a single step it is the closed form. Where the integral would take too long (steps
that an example is hardly ever in), it is a grid of losses with an eighth of the usual tolerance, which is no second
method, and the table says so. Results stand in results/accounting.{json,md}.

    OMP_NUM_THREADS=1 python benchmarks/accounting.py              # goes on where it was stopped
    OMP_NUM_THREADS=1 python benchmarks/accounting.py --limit 600  # begins no point after so many seconds
"""

import argparse
import json
import math
import resource
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter
from scipy.optimize import brentq
from scipy.stats import norm

from securekd.files import write_atomically
from securekd.privacy.accountant import LEAST_NOISE_MULTIPLIER, calibrate_dp_sgd, compose_epsilon, needs_no_noise
from securekd.privacy.events import DpSgdEvent
from securekd.privacy.gaussian import gaussian_epsilon
from securekd.privacy.loss_distribution import TOLERANCE, loss_epsilon
from securekd.privacy.saddle_point import saddle_epsilon
from securekd.privacy.sampled_gaussian import Pair, Steps

RESULTS = Path(__file__).parent / "results" / "accounting.json"
RATES = (1e-5, 1e-3, 0.1, 1.0)
STEPS = (1, 200, 50_000, 10_000_000)
EPSILONS = (0.05, 0.5, 5.0, 50.0)
DELTAS = (1e-15, 1e-11, 1e-7, 1e-3)
MOST_WORK = 1e7


class Point(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(frozen=True)

    rate: float
    steps: int
    epsilon: float
    delta: float


class Row(BaseModel):
    """What was found at one point.

    Attributes:
        point: where.
        noise: noise multiplier of the toolkit.
        noise_ratio: over the reference's; None where the least noise is more than enough.
        epsilon_ratio: reported ε over the reference's, at that noise; None likewise.
        reference: which one.
        seconds: of the calibration.
    """

    model_config = ConfigDict(frozen=True)

    point: Point
    noise: float
    noise_ratio: float | None
    epsilon_ratio: float | None
    reference: str
    seconds: float

    @property
    def bound(self) -> float:
        """What the noise ratio must not exceed."""
        corner = self.point.rate < 1e-4 and self.noise < 1
        return 1.03 if corner or self.point.delta < 1e-12 else 1.01

    @property
    def promised(self) -> bool:
        """Whether the bound is promised here: noise is needed, and it is in the range that is spoken of."""
        p = self.point
        return -math.expm1(p.steps * math.log1p(-min(p.rate, 1 - 1e-16))) > 2 * p.delta and 0.1 <= self.noise <= 1e6


def points() -> Iterator[Point]:
    """All 256, in an order in which neighbours are far apart: what is measured first is of every kind."""
    every = list(product(RATES, STEPS, EPSILONS, DELTAS))
    for i in range(len(every)):
        rate, steps, epsilon, delta = every[i * 101 % len(every)]
        yield Point(rate=rate, steps=steps, epsilon=epsilon, delta=delta)


def measure(point: Point) -> Row:
    """The toolkit and the reference at one point."""
    begin = time.monotonic()
    noise = calibrate_dp_sgd(point.rate, point.steps, point.epsilon, point.delta, "add_remove")
    seconds = time.monotonic() - begin
    if noise == LEAST_NOISE_MULTIPLIER:
        why = "no noise needed" if needs_no_noise(point.rate, point.steps, point.delta) else "least noise is enough"
        return Row(point=point, noise=noise, noise_ratio=None, epsilon_ratio=None, reference=why, seconds=seconds)
    event = DpSgdEvent(sampling_rate=point.rate, noise_multiplier=noise, steps=point.steps)
    reported = compose_epsilon([event], "add_remove", point.delta)
    name, cost = _reference(point, noise)
    smallest = _smallest(cost, point.epsilon, noise)
    return Row(
        point=point,
        noise=noise,
        noise_ratio=noise / smallest,
        epsilon_ratio=reported / cost(noise),
        reference=name,
        seconds=seconds,
    )


def _reference(point: Point, noise: float) -> tuple[str, Callable[[float], float]]:
    def steps(noise: float) -> list[Steps]:
        return [Steps(Pair(point.rate, noise, "remove"), point.steps)]

    if point.steps == 1 and point.rate < 1:
        return "closed form", lambda s: _one_step(point.rate, s, point.delta)
    if saddle_epsilon(steps(noise), point.delta, MOST_WORK) is not None:
        return "saddle point", lambda s: saddle_epsilon(steps(s), point.delta, MOST_WORK) or math.nan
    return "fine grid", lambda s: loss_epsilon(steps(s), point.delta, TOLERANCE / 8)


def _one_step(rate: float, noise: float, delta: float) -> float:
    """ε at δ of one subsampled Gaussian step, removal: P and Q beyond the x at which the loss is ε."""

    def excess(log_epsilon: float) -> float:
        epsilon = math.exp(log_epsilon)
        x = noise**2 * math.log1p(math.expm1(epsilon) / rate) + 0.5
        return rate * float(norm.sf((x - 1) / noise)) - (math.expm1(epsilon) + rate) * float(norm.sf(x / noise)) - delta

    return math.exp(brentq(excess, -20.0, 6.0, xtol=1e-9)) if excess(-20.0) > 0 else 0.0


def _smallest(cost: Callable[[float], float], epsilon: float, noise: float) -> float:
    low = noise / 1.001
    while cost(low) < epsilon:
        low /= 1.01
    high = noise
    while cost(high) > epsilon:
        high *= 1.001
    return math.exp(brentq(lambda s: cost(math.exp(s)) - epsilon, math.log(low), math.log(high), xtol=1e-4))


def exact_errors() -> list[str]:
    """The saddle-point reference beside the exact curve, where every example is in every step."""
    found = []
    for mu, steps, delta in ((0.01, 1, 1e-4), (1.0, 100, 1e-5), (3.0, 200, 1e-13), (3.0, 10**7, 1e-15)):
        got = saddle_epsilon([Steps(Pair(1.0, math.sqrt(steps) / mu, "remove"), steps)], delta)
        exact = gaussian_epsilon(mu, delta)
        error = "none" if got is None else f"{abs(got / exact - 1):.0e}"
        found.append(f"| {mu:g} | {steps:,} | {delta:g} | {exact:.6g} | {error} |")
    return found


def markdown(rows: list[Row], memory_mib: float) -> str:
    """The table, worst first, and what misses its bound."""
    compared = [r for r in rows if r.noise_ratio is not None and r.epsilon_ratio is not None]
    missed = [r for r in compared if r.promised and (r.noise_ratio or 0) > r.bound]
    slowest = max(rows, key=lambda r: r.seconds)
    lines = [
        "# Noise of DP-SGD beside the smallest that is enough",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/accounting.py` (one thread); what is compared stands in its docstring.",
        "",
        f"{len(rows)} of {len(list(points()))} points measured; at {len(compared)} of them noise is compared, at "
        f"{len(rows) - len(compared)} the least noise ({LEAST_NOISE_MULTIPLIER:g}) is enough. Largest ratio of noise "
        f"{max((r.noise_ratio or 0) for r in compared):.5f}, of ε {max((r.epsilon_ratio or 0) for r in compared):.5f} "
        f"(least {min((r.epsilon_ratio or 9) for r in compared):.7f}). Slowest calibration {slowest.seconds:.1f} s at "
        f"{_said(slowest.point)}; most memory {memory_mib:.0f} MiB.",
        "",
        f"Beyond the bound (1.01; 1.03 where δ < 1e-12, or q < 1e-4 and σ < 1): {len(missed) or 'none'}.",
        *[f"- {_said(r.point)}: {r.noise_ratio:.4f}" for r in missed],
        "",
        "Reference beside the exact Gaussian curve (q = 1):",
        "",
        "| μ | T | δ | ε, exact | relative error |",
        "| --- | --- | --- | --- | --- |",
        *exact_errors(),
        "",
        "All points (q sampling rate, T steps, σ noise multiplier):",
        "",
        "| q | T | ε | δ | σ | σ ratio | ε ratio | reference | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in sorted(rows, key=lambda r: tuple(r.point.model_dump().values())):
        p = r.point
        ratios = " | ".join("" if v is None else f"{v:.5f}" for v in (r.noise_ratio, r.epsilon_ratio))
        lines.append(
            f"| {p.rate:g} | {p.steps:,} | {p.epsilon:g} | {p.delta:g} | {r.noise:.6g} | {ratios} | {r.reference} | "
            f"{r.seconds:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _said(p: Point) -> str:
    return f"q = {p.rate:g}, T = {p.steps:,}, ε = {p.epsilon:g}, δ = {p.delta:g}"


def main() -> None:
    """Measure what is not measured yet, keeping each row as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which no point is begun")
    limit, begin = parser.parse_args().limit, time.monotonic()
    table = TypeAdapter(tuple[float, list[Row]])
    memory, rows = table.validate_json(RESULTS.read_bytes()) if RESULTS.exists() else (0.0, [])
    done = {r.point for r in rows}
    for point in points():
        if point in done or time.monotonic() - begin > limit:
            continue
        rows.append(measure(point))
        memory = max(memory, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        write_atomically(RESULTS, json.dumps(table.dump_python((memory, rows), mode="json"), indent=0).encode())
        print(rows[-1].model_dump_json(), flush=True)
    write_atomically(RESULTS.with_suffix(".md"), markdown(rows, memory).encode())


if __name__ == "__main__":
    main()
