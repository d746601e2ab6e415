"""The Markdown page and the plot of the privacy-utility benchmark, from its JSON record."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

PARTITIONS = {"iid": "IID", "dirichlet": "Dirichlet 0.3"}
CLIENT_METHODS = {
    "noise_aware": "noise-aware student",
    "gnmax": "GNMax, queries tuned on validation rows",
    "gnmax_best_on_test": "GNMax, number of queries chosen *on the test set*",
    "noisy_votes": "noisy votes on all rows, arg max",
    "fedavg": "DP-FedAvg, 20 rounds, principal components",
    "fedavg_graph": "DP-FedAvg, 20 rounds, graph coordinates",
}
EXAMPLE_METHODS = {
    "student": "student of 10 clients",
    "central": "central DP-SGD",
    "clients_mean": "a client alone, mean",
    "averaged_weights": "one-shot average of weights",
    "central_student": "central DP-SGD as the one teacher of the same student",
}
EXAMPLE_RIVALS = {name: words for name, words in EXAMPLE_METHODS.items() if name != "student"}
COLOURS = ("#0072b2", "#d55e00", "#e8b08a", "#999999", "#009e73", "#8fd0bb")


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95% t interval (0 for a single value)."""
    n = len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else 0.0
    return float(np.mean(values)), half


def values_of(record: dict[str, Any], *keys: str) -> list[float]:
    """One figure, from all seeds that have it."""
    found = []
    for run in record["runs"].values():
        value: Any = run
        for key in keys:
            value = value.get(key) if value is not None else None
        if value is not None:
            found.append(float(value))
    return found


def epsilons_of(record: dict[str, Any], part: str) -> list[str]:
    keys = {k for run in record["runs"].values() for k in run.get(part, {}) if k not in ("ledger", "local")}
    return sorted(keys, key=float)


def markdown(record: dict[str, Any]) -> str:
    lines = [
        "# What privacy costs on MNIST",
        "",
        "Made by `OMP_NUM_THREADS=1 python benchmarks/privacy_utility_mnist.py`. Accuracy on the official test set in "
        "percent: mean over seeds ± half the 95% t interval. Each seed has fresh transfer rows (10,000 of the 60,000, "
        "labels unused), partition and noise. Features are histograms of oriented gradients: no data shaped them. "
        "The settings of all baselines were chosen on 5,000 rows cut from the training files, for each ε and partition "
        "anew, at no privacy cost; nothing was tuned on the test set.",
        "",
        "## Client-level: 250 clients of 200 examples",
        "",
        "δ = 1e-5, a client sends zeros or not (zero-out), server's view. Every client adds Skellam noise to its own "
        "integers; the noise of 241 is counted (at least 245 survive, up to 4 of them collude), all 250 do survive. "
        "Data-independent accounting. GNMax's votes are centred, which leaves their winner and spares 5% of the noise. "
        "Sums are plain additions of the clients' integers" + _session(record.get("masked_session")) + ".",
        "",
    ]
    for part, words in PARTITIONS.items():
        if epsilons := epsilons_of(record, part):
            lines += [f"### {words}", "", *_table(record, part, CLIENT_METHODS, epsilons), ""]
            lines += [_ledger(record, part, epsilons), ""]
    lines += _local(record)
    if epsilons := epsilons_of(record, "examples"):
        lines += [
            "## Example-level: 10 clients of 5,000 examples, IID",
            "",
            "δ = 1e-5, an example is added or removed, in every view: clients train a linear head by DP-SGD (Poisson "
            "samples, closed form), and what they release is post-processing. A client's number of components and "
            "learning rate are tuned for each ε, and so are those of the central training. The last row shows what the "
            "student alone gains from the transfer set.",
            "",
            *_table(record, "examples", EXAMPLE_METHODS, epsilons),
            "",
            _ledger(record, "examples", epsilons),
            "",
            "Points by which the student is ahead, paired by seed:",
            "",
            *_differences(record, "examples", "student", EXAMPLE_RIVALS, epsilons),
            "",
        ]
    if epsilons := epsilons_of(record, "examples_plain"):
        lines += [
            "### Heads on plain HOG",
            "",
            "The same with heads that see HOG as it is, without the principal components of the transfer set, which "
            "is how small institutions would begin: clients and central training lose accuracy, the student does not.",
            "",
            *_table(record, "examples_plain", EXAMPLE_METHODS, epsilons),
            "",
        ]
    lines += ["![Accuracy against ε](privacy_utility_mnist.svg)", "", _machine(record), ""]
    return "\n".join(lines)


def _session(session: dict[str, Any] | None) -> str:
    if session is None:
        return ""
    same = "the same integers" if session["identical"] else "OTHER INTEGERS"
    return (
        f"; one of them also went through a whole masked session, which opened {same} "
        f"({session['cpu_seconds']:.0f} s of CPU for all parties, {session['upload_bytes_per_client'] / 1024:.0f} KiB "
        "sent by a client)"
    )


def _table(record: dict[str, Any], part: str, methods: dict[str, str], epsilons: list[str]) -> list[str]:
    rows = [f"| | {' | '.join('ε = ' + e for e in epsilons)} |", "| --- |" + " --: |" * len(epsilons)]
    for name, words in methods.items():
        cells = [_cell(values_of(record, part, e, name)) for e in epsilons]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return rows


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    mean, half = interval(values)
    return f"{mean:.2f} ± {half:.2f}"


def _ledger(record: dict[str, Any], part: str, epsilons: list[str]) -> str:
    """The largest ε of any method and seed that the accountant computed, beside each target."""
    largest = [
        max(value for run in record["runs"].values() for value in run.get(part, {"ledger": {}})["ledger"][e].values())
        for e in epsilons
        if any(e in run.get(part, {}) for run in record["runs"].values())
    ]
    return "ε in the ledger, the largest of all rows: " + ", ".join(f"{value:.4f}" for value in largest) + "."


def _local(record: dict[str, Any]) -> list[str]:
    lines = ["### Without privacy", "", "| | IID | Dirichlet 0.3 |", "| --- | --: | --: |"]
    for name, words in (
        ("ridge", "a client alone, mean: ridge on its own rows"),
        ("semi_supervised", "a client alone, mean: its classes' prototypes in the graph of the transfer set"),
    ):
        lines.append(f"| {words} | {' | '.join(_cell(values_of(record, p, 'local', name)) for p in PARTITIONS)} |")
    for name, words in (
        ("central", "the student's kernel machine on all private rows"),
        ("true_labels", "the student's kernel machine on the transfer set's true labels"),
    ):
        lines.append(f"| {words} | {_cell(values_of(record, 'yardsticks', name))} | the same |")
    return [*lines, "", *_said_plainly(record), ""]


def _differences(
    record: dict[str, Any], part: str, ours: str, rivals: dict[str, str], epsilons: list[str]
) -> list[str]:
    """A table of what one method has over others, in points, paired by seed; bold where the interval leaves out 0."""
    rows = [f"| | {' | '.join('ε = ' + e for e in epsilons)} |", "| --- |" + " --: |" * len(epsilons)]
    for name, words in rivals.items():
        cells = []
        for e in epsilons:
            pairs = list(zip(values_of(record, part, e, ours), values_of(record, part, e, name), strict=False))
            mean, half = interval([a - b for a, b in pairs]) if pairs else (0.0, np.inf)
            cell = f"{mean:+.2f} ± {half:.2f}"
            cells.append("–" if not pairs else f"**{cell}**" if abs(mean) > half else cell)
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return rows


def _said_plainly(record: dict[str, Any]) -> list[str]:
    """What the tables could hide: where a baseline is level or ahead, in words and figures."""
    lines = ["### Where baselines are level", ""]
    rivals = {name: words for name, words in CLIENT_METHODS.items() if name not in ("noise_aware", "noisy_votes")}
    for part, words in PARTITIONS.items():
        if epsilons := epsilons_of(record, part):
            lines += [f"{words}: points by which the noise-aware student is ahead, paired by seed.", ""]
            lines += [*_differences(record, part, "noise_aware", rivals, epsilons), ""]
    alone = {p: _cell(values_of(record, p, "local", "semi_supervised")) for p in PARTITIONS}
    return [
        *lines,
        "MNIST's classes are clusters, and the graph of the transfer set shows them to everybody. What uses that graph "
        "has hardly anything left to lose. GNMax, whose student here spreads its few labels over the same graph and "
        "learns with the same kernel, is about level with the noise-aware student from ε = 1 on. DP-FedAvg is within a "
        "point of it at every ε where it is given the graph's coordinates, and level or ahead from ε = 4 (IID) or 8 "
        "(Dirichlet) on with principal components, which hold more than the graph. One IID client "
        f"alone, which places its examples in that graph, has {alone['iid']}% without any federation.",
        "",
        "What federation buys is what a skewed client cannot have "
        f"(alone: {alone['dirichlet']}%). What the noise-aware student buys over GNMax is accuracy at ε = 0.5, and no "
        "number of queries to choose: with the number that validation rows favoured, GNMax is often half a point to a "
        "point behind its best number. Intervals are wide where one seed gives a part of a cluster to the wrong class, "
        "which costs a point or more at once; the noise-aware student is not spared.",
    ]


def _machine(record: dict[str, Any]) -> str:
    about = record["machine"]
    total = sum(record.get("cpu_seconds", {}).values()) / 60
    return (
        f"Seeds: {len(record['runs'])}. {about['processor']}, one thread, {total:.0f} CPU minutes in all; "
        f"Python {about['python']}, numpy {about['numpy']}, scipy {about['scipy']}, torch {about['torch']}."
    )


def plot(record: dict[str, Any], path: Path) -> None:
    """Client-level panels for both partitions, and example-level."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"svg.hashsalt": "securekd", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    panels = [
        ("iid", "250 clients, client-level ε, IID", CLIENT_METHODS),
        ("dirichlet", "250 clients, client-level ε, Dirichlet 0.3", CLIENT_METHODS),
        ("examples", "10 clients, example-level ε, IID", EXAMPLE_METHODS),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), facecolor="white", layout="constrained")
    for axis, (part, title, methods) in zip(axes, panels, strict=True):
        epsilons = epsilons_of(record, part)
        for (name, words), colour in zip(methods.items(), COLOURS, strict=False):
            figures = {float(e): values_of(record, part, e, name) for e in epsilons}
            spread = {e: interval(values) for e, values in figures.items() if values}
            x, y = list(spread), [mean for mean, _ in spread.values()]
            axis.errorbar(
                x,
                y,
                [h for _, h in spread.values()],
                label=words.replace("*", ""),
                color=colour,
                marker="o",
                ms=3,
                capsize=2,
            )
        axis.set(title=title, xlabel="ε at δ = 1e-5", ylabel="test accuracy, %", xscale="log")
        axis.set_xticks([float(e) for e in epsilons], epsilons)
        axis.minorticks_off()
        axis.set_ylim(88 if part != "examples" else 95, 99.5)
        axis.legend(fontsize=7, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
