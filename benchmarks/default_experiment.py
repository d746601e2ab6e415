"""The embedded experiment over several seeds: the README's one result, its table and its plot.

Run: python benchmarks/default_experiment.py [--seeds 5]

Writes benchmarks/results/default_experiment.json and .svg, and the table between the README's markers. Noise is the
operating system's, so figures differ a little from run to run.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from securekd import Result, load_experiment, run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MODELS = {
    "student": "student, distilled from the masked sum",
    "local_mean": "clients alone, mean",
    "local_best": "clients alone, best",
    "centralized": "all data in one place, same DP",
    "centralized_nonprivate": "all data in one place, no privacy",
}
POINTS = {
    "client_model": "a client's model",
    "client_release": "a client's release",
    "aggregate": "the aggregate",
    "student": "the student",
}
BEGIN, END = "<!-- result:begin -->", "<!-- result:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    with tempfile.TemporaryDirectory() as folder:
        results = [run(load_experiment(None, [f"seed={seed}"]), Path(folder) / str(seed)) for seed in seeds]
    figures = collect(results)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "default_experiment.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(figures, RESULTS / "default_experiment.svg")
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    page.write_text(before + BEGIN + "\n" + section(figures) + after, encoding="utf-8")
    print(section(figures))


def collect(results: list[Result]) -> dict[str, object]:
    """Mean and standard deviation over seeds of every figure that is shown."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}

    losses = [{leak.point: leak for leak in r.leakage if leak.attack == "loss"} for r in results]
    proven = [g for r in results for g in r.privacy.guarantees if g.unit == "example"]
    return {
        "seeds": len(results),
        "clients": len(results[0].data.clients),
        "examples": sum(map(sum, results[0].data.counts)),
        "epsilon": max(g.epsilon for g in proven if g.epsilon is not None),
        "delta": results[0].privacy.guarantees[0].delta,
        "accuracy": {name: spread([getattr(r.utility, name).accuracy for r in results]) for name in MODELS},
        "auc": {point: spread([found[point].auc for found in losses]) for point in POINTS},
        "upload_bytes_per_client": float(np.mean([r.communication.upload_bytes_per_client.mean for r in results])),
        "environment": results[0].environment.model_dump(mode="json"),
    }


def section(figures: dict) -> str:
    """The README's section, from the figures."""
    lines = [
        f"{figures['clients']} clients hold {figures['examples']:,} handwritten digits and four kinds of models; "
        f"every scan is protected with ε = {figures['epsilon']:.2f} at δ = {figures['delta']:g} "
        "(add/remove, in every view). "
        f"Mean ± standard deviation over {figures['seeds']} seeds:",
        "",
        "| model | test accuracy |",
        "| --- | --- |",
        *(f"| {words} | {_percent(figures['accuracy'][name])} |" for name, words in MODELS.items()),
        "",
        "| where an adversary stands | AUC of the loss attack (0.5 is chance) |",
        "| --- | --- |",
        *(f"| {words} | {_plus(figures['auc'][point])} |" for point, words in POINTS.items()),
        "",
        "![Accuracy of the student against its baselines, and leakage at four observation points]"
        "(benchmarks/results/default_experiment.svg)",
        "",
        f"`python benchmarks/default_experiment.py` makes this anew. A client uploads "
        f"{figures['upload_bytes_per_client'] / 1024:.0f} KiB over the whole run.",
        "",
    ]
    return "\n".join(lines)


def plot(figures: dict, path: Path) -> None:
    """Two panels: accuracy by model, leakage by observation point."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"svg.hashsalt": "securekd", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), facecolor="white", layout="constrained")
    bars(left, MODELS, figures["accuracy"], ["#0072b2"] + ["#b7c4cf"] * 4)
    left.set(xlabel="test accuracy", xlim=(0.5, 1))
    bars(right, POINTS, figures["auc"], ["#d55e00"] * 4)
    right.axvline(0.5, color="black", linewidth=1, linestyle="--")
    right.set(xlabel="AUC of the loss attack (dashed: chance)", xlim=(0.4, 0.7))
    figure.savefig(path, metadata={"Date": None})


def bars(axes, words: dict, values: dict, colours: list[str]) -> None:
    """Horizontal bars with their standard deviations, first on top."""
    means = [values[name]["mean"] for name in words]
    axes.barh(list(words.values()), means, xerr=[values[name]["std"] for name in words], color=colours, capsize=3)
    axes.invert_yaxis()


def _percent(value: dict) -> str:
    return f"{value['mean']:.1%} ± {value['std']:.1%}"


def _plus(value: dict) -> str:
    return f"{value['mean']:.3f} ± {value['std']:.3f}"


if __name__ == "__main__":
    main()
