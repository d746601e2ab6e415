"""Every row is dealt once, each client holds its minimum, and what cannot be dealt is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd.data.partition import partition
from securekd.errors import DataError
from securekd.settings.data import Partition


def deal(labels: np.ndarray, clients: int | None, seed: int = 0, values=None, **kind) -> tuple[np.ndarray, ...]:
    return partition(labels, values, clients, Partition(**kind), np.random.default_rng(seed))


@settings(deadline=None)
@given(
    kind=st.sampled_from(["iid", "dirichlet", "quantity", "column"]),
    alpha=st.sampled_from([0.1, 1.0, 100.0]),
    rows=st.integers(1, 120),
    classes=st.integers(1, 5),
    clients=st.integers(1, 8),
    minimum=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_every_row_goes_to_one_client(
    kind: str, alpha: float, rows: int, classes: int, clients: int, minimum: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    sites = [f"site {i}" for i in rng.integers(0, clients, rows)]
    by_column = kind == "column"
    settings = {"kind": kind, "alpha": alpha, "minimum": minimum, "column": "site" if by_column else None}
    arguments = (labels, None if by_column else clients, seed, sites if by_column else None)
    try:
        parts = deal(*arguments, **settings)
    except DataError:
        return
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert min(map(len, parts)) >= minimum
    assert all((np.diff(part) > 0).all() for part in parts)
    assert all(np.array_equal(one, two) for one, two in zip(parts, deal(*arguments, **settings), strict=True))
    if by_column:
        assert [{sites[i] for i in part} for part in parts] == [{site} for site in sorted(set(sites))]
    else:
        assert len(parts) == clients


def skew(parts: tuple[np.ndarray, ...], labels: np.ndarray) -> float:
    """Mean total variation between a client's classes and everybody's."""
    everybody = np.bincount(labels) / len(labels)
    own = [np.bincount(labels[part], minlength=len(everybody)) / len(part) for part in parts]
    return float(np.mean([np.abs(p - everybody).sum() / 2 for p in own]))


def test_kinds_differ_in_what_they_skew() -> None:
    labels = np.random.default_rng(1).integers(0, 10, 5000)
    iid = deal(labels, 10)
    assert {len(part) for part in iid} == {500}
    assert skew(iid, labels) < 0.1
    dirichlet = [skew(deal(labels, 10, kind="dirichlet", alpha=a), labels) for a in (0.1, 0.5, 100)]
    assert dirichlet[0] > dirichlet[1] > 0.3 > 0.15 > dirichlet[2]
    quantity = deal(labels, 10, kind="quantity", alpha=0.5)
    assert max(map(len, quantity)) > 4 * min(map(len, quantity))
    assert skew(tuple(part for part in quantity if len(part) > 300), labels) < 0.15
    assert any(not np.array_equal(a, b) for a, b in zip(iid, deal(labels, 10, seed=1), strict=True))


def test_a_client_with_one_class_only_is_allowed() -> None:
    labels = np.repeat(np.arange(4), 25)
    parts = deal(labels, 4, values=[f"s{i}" for i in labels], kind="column", column="site")
    assert [set(labels[part]) for part in parts] == [{0}, {1}, {2}, {3}]


def test_bad_partitions() -> None:
    labels = np.zeros(20, dtype=np.int64)
    with pytest.raises(DataError, match=r"20 private rows are too few for 11 clients with 2 each.*clients\.count"):
        deal(labels, 11)
    with pytest.raises(DataError, match=r"1000 draws with alpha = 0\.01.*data\.partition\.alpha"):
        deal(labels, 5, kind="quantity", alpha=0.01, minimum=3)
    with pytest.raises(DataError, match=r"needs a number of clients.*clients\.count"):
        deal(labels, None)
    column = {"kind": "column", "column": "site"}
    with pytest.raises(DataError, match=r"3 clients are asked for.* 2 values"):
        deal(labels, 3, values=["a", "b"] * 10, **column)
    with pytest.raises(DataError, match="institution 'b' has 1 private rows.* is 2"):
        deal(labels, None, values=["a"] * 19 + ["b"], **column)
    with pytest.raises(DataError, match="1 private rows have no value in the partition column 'site'"):
        deal(labels, None, values=["a"] * 19 + [None], **column)
