"""The page on data says what the code does: its words, limits and refusals are tried."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from securekd.cli.command import cli
from securekd.data import cells, images, reading
from securekd.errors import DataError

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "data.md").read_text(encoding="utf-8")


def part(name: str) -> str:
    return PAGE.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0]


ROWS = [
    ([code.strip("`") for code in re.findall(r"`[^`]+`", row.split("|")[1])], row.split("|")[2].strip())
    for row in part("cells").splitlines()
    if row.startswith("|")
][2:]


def number(cell: str) -> float:
    import pyarrow as pa

    value: float = cells.numbers_of(pa.chunked_array([["1", cell]]), "column 'x'")[1]
    return value


def test_the_words_for_missing_are_those_of_the_code() -> None:
    (missing, _), (further, _), *_ = ROWS
    assert {"", *missing} == cells.MISSING
    letters = {f".{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"}
    assert {*further, *letters, *(word.lower() for word in cells.MISSING)} == cells.NO_NUMBER
    assert all(np.isnan(number(word)) for word in (*missing, *further))


def test_each_cell_is_read_or_refused_as_the_table_says() -> None:
    refused = [
        (cell, said.removeprefix("refused: ")) for row, said in ROWS for cell in row if said.startswith("refused")
    ]
    assert len(refused) > 8
    for cell, remedy in refused:
        with pytest.raises(DataError, match=re.escape(remedy)):
            number(cell)
    (numbers,) = [row for row, said in ROWS if said == "31"]
    assert {number(cell) for cell in numbers} == {31.0}
    assert [cells.name_of(cell) for cell in numbers] == ["31", "31", "+31", "31", "3.1e1"]
    (infinite,) = [row for row, said in ROWS if said.startswith("beyond")]
    assert [number(cell) for cell in infinite] == [np.inf, -np.inf]


def test_limits_and_formats_are_those_of_the_code() -> None:
    text = " ".join(part("images").split())
    assert f"at most {images.MAX_PIXELS:,} pixels" in text
    assert text.startswith(f"Decoded are {', '.join(images.FORMATS[:-1])} and {images.FORMATS[-1]}")
    assert f"more than {cells.MANY} values" in PAGE
    assert all(f"| `{suffix}` |" in PAGE for suffix in reading.SUFFIXES)


def test_every_command_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = ["age,smoker,diagnosis"]
    rows += [f"{rng.uniform(20, 90):.1f},{'yn'[i % 2]},{('ill', 'well')[int(rng.integers(2))]}" for i in range(900)]
    (tmp_path / "patients.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    commands = []
    for page in sorted(DOCS.glob("*.md")):
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        assert all(kind == "sh" for kind, _ in blocks), "other blocks need a test of their own"
        commands += [line for _, text in blocks for line in text.splitlines()]
    assert commands
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "securekd"
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, done.output
