"""Who holds what: examples by client and class, as numbers and as a plot."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from securekd.data.examples import Array, FederatedData, read_only

INK = "#767676"
"""Grey with a contrast of 4.5 on white and of 4.1 on near-black: text that reads on light and on dark pages."""

_COLOURED = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
STYLE: Any = {"svg.hashsalt": "securekd", "svg.fonttype": "none", "text.parse_math": False} | dict.fromkeys(
    _COLOURED, INK
)
"""Matplotlib settings: repeatable ids, text as text, names that hold a $ as they are, and the ink."""


@dataclass(frozen=True, eq=False)
class Holdings:
    """Examples by client and class.

    Attributes:
        clients: K names.
        classes: C names.
        counts: int64 (K, C), read-only.
    """

    clients: tuple[str, ...]
    classes: tuple[str, ...]
    counts: Array

    def plot(self) -> str:
        """A bar for each client, stacked by class, as an SVG element with a transparent background."""
        from matplotlib import color_sequences, colormaps, rc_context
        from matplotlib.figure import Figure

        few = len(self.classes) <= 10
        colours = [
            color_sequences["petroff10"][i] if few else colormaps["turbo"]((i + 0.5) / len(self.classes))
            for i in range(len(self.classes))
        ]
        with rc_context(STYLE):
            figure = Figure(figsize=(8, 1.4 + 0.3 * len(self.clients)), layout="constrained")
            axes = figure.subplots()
            starts = np.cumsum(self.counts, axis=1) - self.counts
            positions = np.arange(len(self.clients))
            for c, name in enumerate(self.classes):
                axes.barh(positions, self.counts[:, c], left=starts[:, c], color=colours[c], label=name)
            axes.set_yticks(positions, self.clients)
            axes.invert_yaxis()
            axes.set_xlabel("private examples")
            axes.spines[["top", "right"]].set_visible(False)
            figure.legend(
                *axes.get_legend_handles_labels(),
                loc="outside right upper",
                frameon=False,
                ncols=1 + (len(self.classes) - 1) // 20,
            )
            drawn = io.StringIO()
            figure.savefig(
                drawn, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
            )
        return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def holdings(data: FederatedData) -> Holdings:
    """Count each client's examples by class."""
    rows = [
        np.bincount(client.labels, minlength=len(data.classes)) for client in data.clients if client.labels is not None
    ]
    return Holdings(data.client_names, data.classes, read_only(np.stack(rows).astype(np.int64)))
