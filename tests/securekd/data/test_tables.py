"""Tables: declared columns, columns fitted on public rows, and nothing learnt from private ones."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd.data.tables import Category, Number, fit_table
from securekd.errors import DataError
from securekd.settings.data import Column


def dataset(**columns: list[Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns)


def test_declared_columns() -> None:
    rows = dataset(age=[-5, 0, 25, 100, 400, None], sex=["f", "m", "x", None, "f", "f"])
    encoder = fit_table(
        ("age", "sex"), {"age": Column(low=0, high=100), "sex": Column(categories=("m", "f"))}, rows.select([0])
    )
    assert encoder.shape == (3,)
    assert encoder.encode(rows).dtype == np.float32
    assert encoder.encode(rows).tolist() == [[0, 0, 1], [0, 1, 0], [0.25, 0, 0], [1, 0, 0], [1, 0, 1], [0.5, 0, 1]]


def test_undeclared_columns_are_fitted_on_the_transfer_set() -> None:
    transfer = dataset(x=[2.0, 4.0, None], s=["10", "20", "30"], c=["?", "b", "a"], one=[7, 7, 7])
    encoder = fit_table(("x", "s", "c", "one"), {}, transfer)
    assert encoder.columns == (
        Number("x", 2, 4),
        Number("s", 10, 30),
        Category("c", ("?", "a", "b")),
        Number("one", 7, 7),
    )
    private = dataset(x=[3.0, 99.0, np.inf], s=["20", " ", None], c=["?", "new", None], one=[7, 8, 6])
    assert encoder.encode(private).tolist() == [
        [0.5, 0.5, 1, 0, 0, 0],
        [1, 0.5, 0, 0, 0, 0],
        [1, 0.5, 0, 0, 0, 0],
    ]


def test_class_labels_as_inputs_bring_their_public_categories() -> None:
    from datasets import ClassLabel, Dataset, Features

    rows = Dataset.from_dict({"c": [1, 0]}, features=Features({"c": ClassLabel(names=["u", "v", "w"])}))
    encoder = fit_table(("c",), {}, rows.select([0]))
    assert encoder.encode(rows).tolist() == [[0, 1, 0], [1, 0, 0]]


@settings(max_examples=25, deadline=None)
@given(
    private=st.lists(
        st.tuples(st.none() | st.floats() | st.integers(), st.none() | st.text(max_size=4)), min_size=1, max_size=8
    )
)
def test_each_row_is_encoded_on_its_own(private: list[tuple[float | None, str | None]]) -> None:
    """Whatever stands in the private rows, a given row is encoded alike."""
    encoder = fit_table(("x", "c"), {}, dataset(x=["1", "9"], c=["a", "b"]))
    xs = ["5", *(None if x is None else str(x) for x, _ in private)]
    cs = ["b", *(c for _, c in private)]
    alone = encoder.encode(dataset(x=["5"], c=["b"]))
    among = encoder.encode(dataset(x=xs, c=cs))
    assert np.array_equal(alone[0], among[0])
    assert ((among >= 0) & (among <= 1)).all()
    for i, (x, c) in enumerate(zip(xs, cs, strict=True)):
        assert np.array_equal(encoder.encode(dataset(x=[x or ""], c=[c or ""]))[0], among[i])


@pytest.mark.parametrize("declared", [{}, {"age": Column(low=0, high=110)}])
def test_text_among_numbers_is_refused(declared: dict[str, Column]) -> None:
    """Read as missing, it would stand in the middle of the range, and nobody would hear of it."""
    encoder = fit_table(("age",), declared, dataset(age=["20", "30", None]))
    for read in (encoder.encode, lambda rows: encoder.keys(rows, np.zeros((3, 1)))):
        with pytest.raises(DataError, match=r"'age' is read as numbers, and 2 of 3 values are none, such as 'old': "):
            read(dataset(age=["31", "old", "unknown"]))


def test_bad_tables() -> None:
    transfer = dataset(x=[None, None], t=["a", "b"], l=[[1], [2]])
    with pytest.raises(DataError, match=r"'x' has no value in the transfer set.*data\.columns"):
        fit_table(("x",), {}, transfer)
    with pytest.raises(DataError, match="declares 'y', which is no input"):
        fit_table(("t",), {"y": Column(low=0, high=1)}, transfer)
    with pytest.raises(DataError, match="'l' holds"):
        fit_table(("l",), {"l": Column(low=0, high=1)}, transfer)
    with pytest.raises(DataError, match="no column 'z'"):
        fit_table(("z",), {}, transfer)
    with pytest.raises(DataError, match="'l' holds"):
        fit_table(("l",), {}, transfer)
    with pytest.raises(DataError, match="like free text"):
        fit_table(("t",), {}, dataset(t=[f"sentence number {i}" for i in range(150)]))
