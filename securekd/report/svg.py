"""From a matplotlib figure to an SVG element of the page: its colours follow the page's, its ids are its own.

Figures are drawn in stand-in colours, which become CSS variables here.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#010101", "#010102", "#010103"
ACCENT, SECOND, QUIET = "#010104", "#010105", "#010106"

_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    QUIET: "var(--quiet)",
}

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "securekd",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

# What an artist's gid may begin with: the page finds it again as data-setting="..." or data-series="...".
_MARKS = ("setting-", "series-")

_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults, whatever the machine's settings are, with the page's style on top."""
    import matplotlib.style

    with warnings.catch_warnings(), matplotlib.style.context(["default", _STYLE]):
        # The browser sets the text in its own fonts; matplotlib's font only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def drawn(figure: "Figure") -> str:
    """The figure's SVG, without a date or anything else that differs from run to run."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return file.getvalue()


def inline(text: str, name: str, label: str, inks: dict[str, str] | None = None) -> str:
    """An SVG file of matplotlib's as an element of a page.

    Args:
        text: the file.
        name: unique in the page; the element's ids begin with it.
        label: what the picture says, for those who do not see it.
        inks: further colours to replace, by CSS values.
    """
    root = ElementTree.fromstring(text[text.index("<svg") :])  # noqa: S314 - matplotlib wrote it a moment ago
    for parent in list(root.iter()):
        parent.tag = _local(parent.tag)
        for child in list(parent):
            # Matplotlib's style sheet would hold for the whole page; the page has its own.
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    colours = _VARIABLES | (inks or {})
    used = {found for e in root.iter() for found in _references(e)}
    for element in root.iter():
        element.attrib = {_local(k): v for k, v in _own(element, name, used, colours)}
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "class": "plot",
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-label": label,
    }
    return ElementTree.tostring(root, encoding="unicode")


def _own(element: ElementTree.Element, name: str, used: set[str], colours: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        if key == "id":
            mark = next((m for m in _MARKS if value.startswith(m)), None)
            if mark is not None:
                yield f"data-{mark.removesuffix('-')}", value.removeprefix(mark)
            elif value in used:
                yield key, f"{name}-{value}"
        elif _local(key) == "href":
            yield key, f"#{name}-{value.removeprefix('#')}" if value.startswith("#") else value
        else:
            fresh = _REFERENCE.sub(rf"url(#{name}-\1)", value)
            for ink, variable in colours.items():
                fresh = fresh.replace(ink, variable)
            yield key, fresh


def _references(element: ElementTree.Element) -> Iterator[str]:
    for key, value in element.attrib.items():
        if _local(key) == "href" and value.startswith("#"):
            yield value.removeprefix("#")
        yield from _REFERENCE.findall(value)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
