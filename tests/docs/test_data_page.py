"""The page on data says what the code does: its words, limits and refusals are tried."""

import re
from pathlib import Path

import numpy as np
import pytest

from securekd.data import cells, images, labels, reading
from securekd.errors import DataError

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


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
    assert {*further, *(word.lower() for word in cells.MISSING)} == cells.NO_NUMBER
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
    assert f"more than {labels.MANY} values" in PAGE
    assert all(f"| `{suffix}` |" in PAGE for suffix in reading.SUFFIXES)
