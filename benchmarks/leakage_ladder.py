"""Leakage at every observation point under every protection: eight clients with twenty digits each, on MNIST.

Run: OMP_NUM_THREADS=1 python benchmarks/leakage_ladder.py [--seeds 8] [--report]

Shares are so small that models learn them by heart: something leaks, and one can see where it goes. Rounds are those
of `securekd run`, through the same strategy, releases, sums and attacks. Data: $SECUREKD_DATA/mnist, or
shared/data/mnist beside the repository. Writes benchmarks/results/leakage_ladder.json after each round that is
played, and goes on where it stopped; .md and .svg come from that.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student_t

from securekd.checkpoint import Saved
from securekd.federation.carrier import play as play_round
from securekd.laboratory.evaluation import labels_of, utility
from securekd.laboratory.leakage import attacked
from securekd.laboratory.outcome import RoundOutcome
from securekd.laboratory.parties import parties
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.tasks import TrainTask, perform
from securekd.privacy.accountant import guarantees
from securekd.privacy.ledger import Ledger
from securekd.report import numbers
from securekd.settings.config import parse_experiment
from securekd_attacks import MembershipScores, auc, tpr_at_fpr

RESULTS = Path(__file__).parent / "results"
CLIENTS, EACH, TRANSFER, TESTED = 8, 20, 300, 800
MORE = 60  # examples of a client, in a comparison of what more data does
CLIP, NOISE, EPSILON = 2.0, 0.5, 8.0
FPR = 0.01

POINTS = {
    "client_model": "client's model",
    "raw_release": "release before its clip",
    "clipped_release": "release without noise",
    "client_release": "release",
    "aggregate": "aggregate",
    "aggregate_minus_colluders": "aggregate without a colluder",
    "student": "student",
}


@dataclass(frozen=True)
class Protection:
    """What is switched on, and the words for it."""

    words: str
    clip: bool = False
    noise: bool = False
    masking: bool = False
    dp_sgd: bool = False

    @property
    def server_sees(self) -> str:
        """The point of the server's view that says most of one client."""
        return "aggregate_minus_colluders" if self.masking else "client_release"


LADDER = {
    "none": Protection("no protection"),
    "clip": Protection("clipping", clip=True),
    "noise": Protection("clipping and noise", clip=True, noise=True),
    "masking": Protection("masking", masking=True),
    "dp_sgd": Protection("DP-SGD", dp_sgd=True),
    "all": Protection("all of them", clip=True, noise=True, masking=True, dp_sgd=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--report", action="store_true", help="write table and plot of what is there, and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "leakage_ladder.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"settings": settings(), "runs": {}}
    for seed in () if options.report else range(options.seeds):
        for name, protection in LADDER.items():
            if f"{name}.{seed}" not in record["runs"]:
                record["runs"][f"{name}.{seed}"] = play(protection, seed)
                path.write_text(json.dumps(record, indent=1) + "\n")
        for name in ("none", "dp_sgd"):
            if f"{name}.{seed}" not in record.setdefault("more", {}):
                record["more"][f"{name}.{seed}"] = play(LADDER[name], seed, MORE)
                path.write_text(json.dumps(record, indent=1) + "\n")
    text = markdown(record)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    plot(record, path.with_suffix(".svg"))
    print(text)


def settings() -> dict[str, Any]:
    return {
        "clients": CLIENTS,
        "examples_per_client": EACH,
        "examples_per_client_more": MORE,
        "transfer": TRANSFER,
        "test": TESTED,
        "clip": CLIP,
        "noise": NOISE,
        "epsilon": EPSILON,
        "ladder": {name: asdict(protection) for name, protection in LADDER.items()},
    }


def play(protection: Protection, seed: int, each: int = EACH) -> dict[str, Any]:
    """One round, and what the loss attack finds at every point."""
    began = time.process_time()
    plan = planned(protection, seed, each)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.json", noise="os", delta=plan.agreement.delta)
        everybody = parties(plan, Path(folder), one_by_one, lambda name, saved: None, ledger)
        play_round(everybody.server, 1, everybody.carrier, one_by_one)
        outcome = RoundOutcome(1, everybody.server.played[0], everybody)
        made, trained = attacked(plan, outcome, one_by_one), outcome.clients
        found = {one.point: figures(one.scores) for one in made if one.scores.attack == "loss"}
        proven = {f"{g.view} {g.unit}": g.epsilon for g in guarantees(ledger.file)}
    clients = [accuracy(plan, c.model, trained[c.name]) for c in plan.clients]
    return {
        "points": found,
        "student_accuracy": accuracy(plan, plan.experiment.student.model, outcome.student),
        "client_accuracy": float(np.mean(clients)),
        "epsilon": proven,
        "cpu_s": time.process_time() - began,
    }


def planned(protection: Protection, seed: int, each: int) -> Plan:
    root = Path(os.environ.get("SECUREKD_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return make_plan(
        parse_experiment(
            {
                "rounds": 1,
                "seed": seed,
                "aggregation": "masking" if protection.masking else "plain",
                "data": {
                    "source": str(root / "mnist" / "train.parquet"),
                    "transfer": TRANSFER,
                    "test": TESTED,
                    "private": CLIENTS * each,
                },
                "clients": {"count": CLIENTS, "models": [{"kind": "mlp", "learning_rate": 0.3}]},
                "training": {"plain_epochs": 60},
                "privacy": {"dp_sgd": protection.dp_sgd, "epsilon": EPSILON},
                "release": {
                    "clip": CLIP if protection.clip else 1000.0,
                    "noise": NOISE if protection.noise else 0.0,
                },
                "student": {"epochs": 60, "consensus": "mean"},
                "audit": {"attacks": ["loss"], "points": "all"},
            }
        )
    )


def figures(scores: MembershipScores) -> dict[str, float]:
    area = auc(scores.members, scores.nonmembers)
    rate = tpr_at_fpr(scores.members, scores.nonmembers, FPR)
    return {"auc": area.value, "tpr": rate.value, "members": area.members, "nonmembers": area.nonmembers}


def accuracy(plan: Plan, model: Any, state: Any) -> float:
    return utility(plan.logits(model, state, plan.data.test.inputs), labels_of(plan.data.test)).accuracy


def one_by_one(todo: Sequence[TrainTask]) -> Iterator[Saved]:
    return map(perform, todo)


def over_seeds(record: dict[str, Any], protection: str, *keys: str, runs: str = "runs") -> tuple[float, float, int]:
    """Mean, half of the 95% t interval, and number of seeds of a figure."""
    values = []
    for name, run in record[runs].items():
        if name.split(".")[0] == protection:
            for key in keys:
                run = run[key]
            values.append(run)
    spread = student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(spread), len(values)


def interval(record: dict[str, Any], protection: str, *keys: str) -> tuple[float, float]:
    mean, half, _ = over_seeds(record, protection, *keys)
    return mean - half, mean + half


def markdown(record: dict[str, Any]) -> str:
    seeds = over_seeds(record, "none", "student_accuracy")[2]
    names = list(LADDER)
    heads = "| | " + " | ".join(LADDER[n].words for n in names) + " |\n| --- |" + " --: |" * len(names)

    def row(words: str, *keys: str, scale: float = 1.0, digits: int = 3) -> str:
        cells = []
        for name in names:
            mean, half, _ = over_seeds(record, name, *keys)
            cells.append(f"{scale * mean:.{digits}f} ± {scale * half:.{digits}f}")
        return f"| {words} | " + " | ".join(cells) + " |"

    lines = [
        "# Where leakage goes, step by step",
        "",
        f"Made by `OMP_NUM_THREADS=1 python benchmarks/leakage_ladder.py`. {CLIENTS} clients hold {EACH} MNIST digits "
        f"each and train perceptrons, which learn them by heart; they score {TRANSFER} public digits, and a perceptron "
        f"is distilled from the mean. The loss attack tells the {CLIENTS * EACH} private digits from {TESTED} others, "
        f"at every point where an adversary may stand. Mean over {seeds} seeds (each with its own split, initial "
        "weights and noise) ± half of the 95% t interval over seeds. Where a point shows scores and no model, the "
        "adversary distils one. One client colludes.",
        "",
        "## AUC of the loss attack (0.5 is chance)",
        "",
        heads,
        *(row(words, "points", point, "auc") for point, words in POINTS.items()),
        "",
        f"## True-positive rate at {FPR:.0%} false positives, in percent ({FPR:.0%} is chance)",
        "",
        heads,
        *(row(words, "points", point, "tpr", scale=100, digits=1) for point, words in POINTS.items()),
        "",
        "## What it costs: accuracy in percent",
        "",
        heads,
        row("student", "student_accuracy", scale=100, digits=1),
        row("a client alone", "client_accuracy", scale=100, digits=1),
        "",
        "## What the server sees of one client",
        "",
        "Without masking, single releases; with masking, a sum, from which it takes what its colluder sent.",
        "",
        "| | point | AUC, 95% interval |",
        "| --- | --- | --: |",
    ]
    for name in names:
        point = LADDER[name].server_sees
        low, high = interval(record, name, "points", point, "auc")
        lines.append(f"| {LADDER[name].words} | {POINTS[point]} | {numbers.area_range(low, high)} |")
    lines += ["", *claims(record), "", *limits(record), ""]
    return "\n".join(lines)


def claims(record: dict[str, Any]) -> list[str]:
    """The two comparisons that this page is for, in words that follow the figures."""
    single = interval(record, "none", "points", "client_release", "auc")
    masked = interval(record, "masking", "points", "aggregate_minus_colluders", "auc")
    bare = interval(record, "none", "points", "student", "auc")
    private = interval(record, "dp_sgd", "points", "student", "auc")

    def said(what: str, before: tuple[float, float], after: tuple[float, float]) -> str:
        apart = "do not touch" if after[1] < before[0] else "**touch**: nothing is shown"
        chance = "holds 0.5" if after[0] <= 0.5 <= after[1] else "does not hold 0.5: something is left"
        return (
            f"- {what}: {numbers.area_range(*before)} without, {numbers.area_range(*after)} with. The intervals "
            f"{apart}; the latter {chance}."
        )

    return [
        said("Masking takes from the server what a single release leaks", single, masked),
        said(f"DP-SGD (ε = {EPSILON:g}) takes away what the student leaks", bare, private),
    ]


def limits(record: dict[str, Any]) -> list[str]:
    epsilon = next(run["epsilon"] for name, run in record["runs"].items() if name.startswith("noise."))
    client = epsilon["server client"]
    proven = "none" if client is None else f"{client:.3g}"
    return [
        "What the figures do not say:",
        "",
        "- Masking changes no number, only who sees it: a release tells the client itself as much as before, and the "
        "sum gives away what it gave away.",
        "- Clipping alone takes nothing away: here a release leaks more with it than without.",
        f"- Noise of {NOISE:g} on each score, beside rows of norm {CLIP:g}, is chosen to be seen in the figure, and "
        f"proves nothing for a whole client (ε in the server's view: {proven}).",
        "- With twenty digits, ε = 8 leaves a client little to learn: leakage and use go down together. "
        + more(record),
        "- The loss attack is one attack; a better one may find more. DP-SGD's ε bounds all of them.",
    ]


def more(record: dict[str, Any]) -> str:
    """What more data per client does, in words."""

    def said(name: str, *keys: str, scale: float, digits: int) -> str:
        mean, half, _ = over_seeds(record, name, *keys, runs="more")
        return f"{scale * mean:.{digits}f} ± {scale * half:.{digits}f}"

    bare, private = (
        f"AUC {said(n, 'points', 'student', 'auc', scale=1, digits=3)} at the student, which is right on "
        f"{said(n, 'student_accuracy', scale=100, digits=1)}%"
        for n in ("none", "dp_sgd")
    )
    single = said("none", "points", "client_release", "auc", scale=1, digits=3)
    return (
        f"With {MORE} digits each the student leaks less to begin with, and DP-SGD costs less: without protection "
        f"{bare}; with DP-SGD {private}. A single release then still leaks {single}."
    )


def plot(record: dict[str, Any], path: Path) -> None:
    """One panel for each protection; a ring where the server, or the public, sees the point."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"svg.hashsalt": "securekd", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, panels = plt.subplots(
        1, len(LADDER), figsize=(12, 3.0), sharey=True, facecolor="white", layout="constrained"
    )
    for axes, (name, protection) in zip(panels, LADDER.items(), strict=True):
        for i, point in enumerate(POINTS):
            mean, half, _ = over_seeds(record, name, "points", point, "auc")
            seen = point in ("student", "aggregate", "aggregate_minus_colluders") or (
                point == "client_release" and not protection.masking
            )
            colour = "#d55e00" if seen else "#9aa5ae"
            axes.errorbar(mean, i, xerr=half, fmt="o", color=colour, capsize=2.5, markersize=5)
        axes.axvline(0.5, color="black", linewidth=1, linestyle="--")
        axes.set(title=protection.words, xlim=(0.42, 1.02), xlabel="AUC")
        axes.grid(axis="x", color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(POINTS)), list(POINTS.values()))
    panels[0].invert_yaxis()
    figure.suptitle(
        "AUC of the loss attack (dashed: chance); orange: seen by the server or the public, grey: by the client alone",
        fontsize=9,
    )
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
