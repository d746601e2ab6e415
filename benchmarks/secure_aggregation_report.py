"""The results as a Markdown table and as a plot of the growth with clients and length."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

_ABOUT = """
Made by `benchmarks/secure_aggregation.py` in one run on {cpu}, Python {python}, numpy {numpy}, cryptography
{cryptography}, flwr {flwr}. CPU time, each session in a process of its own; a
client's is the median over all clients that last to the end,
and up to 100 clients each time is the least of five sessions, ours, Flower's and the limit in turns, since what else a
machine does only adds to them. k is the number of neighbours (n − 1:
the complete graph), t the threshold, D the clients that fall silent before they send their input. *Limit* is the sum of
what an authenticated protocol can not do without, measured before each session with everything in the cache. Flower is
given the same clients, neighbours, threshold and length; its SecAgg+ signs nothing, and its bytes are counted without
framing. *Fl. ÷ limit* is Flower's server time over the limit: no authenticated protocol gets further. {load}
"""
_COLUMNS = [
    *("n", "k", "t", "d", "D", "client, ms", "÷ limit", "Fl. ÷ ours"),
    *("server, s", "÷ limit", "Fl. ÷ ours", "Fl. ÷ limit"),
    *("bytes a value", "Flower's"),
]


def markdown(results: dict[str, Any]) -> str:
    """What was measured, and one line for each case."""
    about = " ".join(_ABOUT.split()).format(load=_load(results), **results["machine"])
    head = ["# Secure aggregation: this library, its physical limit, and Flower's SecAgg+", "", fill(about, 120), ""]
    lines = [_cells(_COLUMNS), _cells(["--:"] * len(_COLUMNS)), *(_line(row) for row in results["rows"])]
    left_out = [row for row in results["rows"] if isinstance(row["ours"], str) or isinstance(row["flower"], str)]
    tail = ["\nA dash is a size that was left out:"] if left_out else []
    for row in left_out:
        why = row["flower"] if isinstance(row["flower"], str) else row["ours"]
        tail.append(f"n = {row['case']['clients']}, d = {row['case']['length']}, D = {row['case']['dropouts']}: {why}.")
    longest = max(row["case"]["length"] for row in results["rows"])
    peaks = [
        row["ours"]["peak_vectors"]
        for row in results["rows"]
        if isinstance(row["ours"], dict) and row["case"]["length"] == longest
    ]
    tail.append(
        f"\nMost memory of a client at d = {longest}, rounding included and the caller's floats not: "
        f"{max(peaks, default=0):.1f} vectors of 4 bytes a value (measured up to 32 clients)."
    )
    return "\n".join(head + lines + tail) + "\n"


def _load(results: dict[str, Any]) -> str:
    """How busy the machine was: this benchmark by itself makes a load of one."""
    loads, cores = [row["load"] for row in results["rows"]], int(results["machine"]["cores"])
    said = f"The machine's load average was {min(loads):.1f} to {max(loads):.1f} on {cores} cores"
    if max(loads) <= max(1.5, cores - 0.5):
        return f"{said}."
    return (
        f"{said}: others shared caches and memory, and what is bound by them, this library's server above all, shows "
        "slower than on a quiet machine."
    )


def _line(row: dict[str, Any]) -> str:
    case, limit, ours, flower = row["case"], row["limit"], row["ours"], row["flower"]
    cells = [str(case[name]) for name in ("clients", "degree", "threshold", "length", "dropouts")]
    both = isinstance(ours, dict) and isinstance(flower, dict)
    for side, scale in (("client_s", 1e3), ("server_s", 1.0)):
        if isinstance(ours, dict):
            cells += [f"{ours[side] * scale:.3g}", f"{ours[side] / limit[side]:.2f}"]
        else:
            cells += ["–", "–"]
        cells.append(f"{flower[side] / ours[side]:.1f}" if both else "–")
    cells.append(f"{flower['server_s'] / limit['server_s']:.1f}" if isinstance(flower, dict) else "–")
    cells.append(f"{ours['up'] / case['length']:.3f}" if isinstance(ours, dict) else "–")
    cells.append(f"{flower['up'] / case['length']:.3f}" if isinstance(flower, dict) else "–")
    return _cells(cells)


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(results: dict[str, Any], path: Path) -> None:
    """Client and server CPU against the length, one line for each number of clients; nothing without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("svg")
        matplotlib.rcParams["svg.hashsalt"] = "securekd"
        from matplotlib import pyplot
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharex=True)
    rows = [row for row in results["rows"] if not row["case"]["dropouts"]]
    sizes = sorted({row["case"]["clients"] for row in rows})
    for axis, side, title in zip(axes, ("client_s", "server_s"), ("a client", "the server"), strict=True):
        for color, n in zip(("#1b6ca8", "#c8553d", "#2e7d4f", "#7a5195"), sizes, strict=False):
            for who, style in (("ours", "-o"), ("limit", ":"), ("flower", "--s")):
                points = [
                    (row["case"]["length"], row[who][side])
                    for row in rows
                    if row["case"]["clients"] == n and isinstance(row[who], dict)
                ]
                if points:
                    axis.plot(*zip(*points, strict=True), style, color=color, markersize=4, label=f"n = {n}, {who}")
        axis.set(xscale="log", yscale="log", xlabel="values in the vector", ylabel=f"CPU seconds of {title}")
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right center")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
