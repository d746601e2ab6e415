"""Who holds what: counts, a table and a plot."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
from rich.console import Console

from securekd.cli.console import holdings_table
from securekd.data import Holdings, holdings, load_federated
from securekd.settings.data import Data

HOSTILE = Holdings(("[bold]a[/]", "<script>b", "$x_1$ $"), ("no", "50 & more"), np.array([[1, 0], [1200, 3], [0, 7]]))


def test_counts_add_up() -> None:
    data = load_federated(Data(), 6, 0)
    found = holdings(data)
    assert found.counts.shape == (6, 10)
    assert not found.counts.flags.writeable
    assert found.counts.sum(axis=1).tolist() == [len(client) for client in data.clients]
    assert found.counts[2, 3] == sum(1 for label in data.clients[2].labels if label == 3)


def test_table_shows_names_as_they_are_and_sums() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(holdings_table(HOSTILE))
    shown = console.export_text()
    assert all(text in shown for text in ("[bold]a[/]", "<script>b", "1,203", "1,211", "·"))


def test_plot_is_a_repeatable_transparent_svg() -> None:
    svg = HOSTILE.plot()
    assert svg == HOSTILE.plot()
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"[bold]a[/]", "<script>b", "$x_1$ $", "no", "50 & more"} <= set(texts)
    assert "#ffffff" not in svg
    assert svg.count("#767676") > 5


def test_plot_of_many_clients_and_classes() -> None:
    rng = np.random.default_rng(0)
    many = Holdings(tuple(f"c{i}" for i in range(15)), tuple(f"k{i}" for i in range(25)), rng.integers(0, 9, (15, 25)))
    ElementTree.fromstring(many.plot())
