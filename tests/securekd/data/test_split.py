"""Splits are disjoint, complete and repeatable; overlaps between sources are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd.data.content import array_keys, table_keys, text_keys
from securekd.data.split import Content, Pool, fill, refuse_overlap
from securekd.errors import DataError


def reader(values: np.ndarray):
    def read(rows: np.ndarray) -> Content:
        return Content(rows, values[rows, None], array_keys(values[rows, None]))

    return read


@given(
    values=st.lists(st.integers(0, 20), min_size=3, max_size=60),
    shares=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 99),
)
def test_splits_share_neither_rows_nor_content(values: list[int], shares: tuple[int, int], seed: int) -> None:
    array = np.array(values)

    def cut() -> list[Content]:
        pool = Pool(len(array), np.random.default_rng(seed))
        parts: list[Content] = []
        for count in (*shares, None):
            avoid = {key for part in parts for key in part.keys}
            parts.append(fill(pool, count, reader(array), avoid, "test"))
        return parts

    try:
        parts = cut()
    except DataError:
        return  # too few rows without copies
    assert [len(part.rows) for part in parts[:2]] == list(shares)
    rows = np.concatenate([part.rows for part in parts])
    assert len(set(rows)) == len(rows)
    contents = [set(array[part.rows]) for part in parts]
    assert not contents[0] & contents[1]
    assert not (contents[0] | contents[1]) & contents[2]
    unused = set(array[np.setdiff1d(np.arange(len(array)), rows)])
    assert unused <= contents[0] | contents[1], "only copies are left out"
    for part, again in zip(parts, cut(), strict=True):
        assert np.array_equal(part.rows, again.rows)
        assert np.array_equal(part.inputs[:, 0], array[part.rows])
        assert part.keys == array_keys(part.inputs)


def test_without_duplicates_every_row_is_dealt() -> None:
    pool = Pool(50, np.random.default_rng(0))
    parts = [fill(pool, count, reader(np.arange(50)), (), "test") for count in (10, 15, None)]
    assert sorted(np.concatenate([part.rows for part in parts])) == list(range(50))


def test_too_few_rows_are_counted() -> None:
    pool = Pool(10, np.random.default_rng(0))
    copies = np.array([1] * 7 + [2, 3, 4])
    with pytest.raises(DataError, match=r"3 rows are left for the private set, which takes 5.*data\.private"):
        fill(pool, 5, reader(copies), array_keys(np.array([[1]])), "private")
    with pytest.raises(DataError, match="takes at least 1"):
        fill(pool, None, reader(copies), (), "private")


def test_overlap_of_different_sources_is_refused() -> None:
    one, other = array_keys(np.arange(5)[:, None]), array_keys(np.arange(4, 30)[:, None])
    refuse_overlap(one[:4], other, ("transfer", "private"), chance=False)
    for chance in (False, True):
        with pytest.raises(DataError, match="1 of 5 transfer rows are private rows too: remove"):
            refuse_overlap(one, other, ("transfer", "private"), chance=chance)


def test_equal_rows_of_a_coarse_table_are_chance_and_a_copy_is_not() -> None:
    rng = np.random.default_rng(0)

    def table(rows: int, values: int) -> list[bytes]:
        return array_keys(rng.integers(0, values, (rows, 1)))

    coarse = table(500, 1000)
    refuse_overlap(table(100, 1000), coarse, ("transfer", "private"), chance=True)
    with pytest.raises(DataError, match="100 of 100"):
        refuse_overlap(coarse[:100], coarse, ("transfer", "private"), chance=True)


def test_keys_of_texts_are_whole_and_lenient() -> None:
    one, two, three = text_keys(["A  b\nc", "a B c ", "a b c d"])
    assert one == two != three


def test_keys_of_tables_see_numbers_and_names() -> None:
    numbers = np.array([[1.0, np.nan], [1.0, np.nan], [1.0, 2.0]])
    assert len(set(table_keys(numbers, [("a",), ("a",), ("a",)], 3))) == 2
    assert len(set(table_keys(numbers, [("a", None), ("a", "None"), ("a", None)], 3))) == 3
    assert len(set(table_keys(np.array([]), [("a", "b"), ("ab", ""), ("a", "b")], 3))) == 2
    assert len(set(table_keys(numbers, [], 3))) == 2
