"""Signals files: what they may hold, and everything that they may not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securekd_attacks import BadLabels, ShapeMismatch, scaled_logit
from securekd_attacks.targets import BadSignalsFile, Records, SignalsFile

N, C = 12, 3


def arrays(**changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    whole = {
        "log_probs": np.log(rng.dirichlet(np.ones(C), size=N)),
        "labels": rng.integers(0, C, size=N),
        "membership": np.arange(N) % 2 == 0,
    }
    return {name: value for name, value in (whole | changed).items() if value is not None}


def stored(folder: Path, **changed: Any) -> Path:
    path = folder / "signals.npz"
    np.savez(path, **arrays(**changed))
    return path


def test_one_model(tmp_path: Path) -> None:
    given = arrays()
    sides = SignalsFile.read(stored(tmp_path)).sides()
    assert list(sides.members.record_ids or ()) == [f"row {i}" for i in range(0, N, 2)]
    np.testing.assert_array_equal(sides.members.log_probs, given["log_probs"][::2])
    np.testing.assert_array_equal(sides.nonmembers.labels, given["labels"][1::2])
    assert sides.population is None
    assert sides.members.references is None


def test_several_models_are_a_target_and_its_references(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    probs, mask = rng.dirichlet(np.ones(C), size=(N, 5)), rng.random((N, 5)) < 0.5
    mask[:2, 0] = True, False
    path = stored(tmp_path, log_probs=None, probs=probs, membership=mask)
    sides = SignalsFile.read(path).sides()
    given, rows = arrays(), np.flatnonzero(mask[:, 0])
    for model in range(1, 5):
        expected = scaled_logit(np.log(probs[rows, model]), given["labels"][rows])
        np.testing.assert_allclose(np.asarray(sides.members.references)[model - 1], expected, rtol=1e-10)
    np.testing.assert_array_equal(sides.members.inclusion, mask[rows, 1:].T)
    assert sides.shadows is not None
    held, others = sides.shadows
    assert (held.records, others.records) == (mask[:, 1:].sum(), (~mask[:, 1:]).sum())
    both = np.concatenate([rows, np.setdiff1d(np.arange(N), rows)])
    first = next(i for i in both if mask[i, 1])
    np.testing.assert_allclose(np.asarray(held.log_probs)[0], np.log(probs[first, 1]))
    assert np.asarray(held.labels)[0] == given["labels"][first]


def test_a_population_is_not_scored(tmp_path: Path) -> None:
    population = np.arange(N) == 1
    sides = SignalsFile.read(stored(tmp_path, population=population)).sides()
    assert sides.population is not None
    assert sides.population.records == 1
    assert sides.nonmembers.records == N // 2 - 1


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rng = np.random.default_rng(2)
    mask = rng.random((N, 4)) < 0.5
    mask[:2, 0] = True, False
    models = np.log(rng.dirichlet(np.ones(C), size=(N, 4)))
    changed = {"log_probs": models, "membership": mask, "ids": np.array([f"r{i}" for i in range(N)])}
    columns = {name: value.tolist() for name, value in arrays(**changed).items()}
    parquet.write_table(pa.table(columns), tmp_path / "signals.parquet")
    ours, theirs = SignalsFile.read(tmp_path / "signals.parquet"), SignalsFile.read(stored(tmp_path, **changed))
    assert ours.ids == theirs.ids
    np.testing.assert_array_equal(ours.log_probs, theirs.log_probs)
    np.testing.assert_array_equal(ours.membership, theirs.membership)


ROWS = np.log(np.full((N, C), 1 / C))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"labels": None}, "does not hold"),
        ({"membership": None}, "does not hold"),
        ({"log_probs": None}, "does not hold"),
        ({"probs": np.exp(ROWS)}, "does not hold"),
        ({"extra": np.zeros(N)}, "does not hold"),
        ({"labels": np.full(N, C)}, "labels must be 12 integers from 0 to 2"),
        ({"labels": np.zeros(N)}, "labels must be"),
        ({"labels": np.zeros(N - 1, dtype=int)}, "labels must be"),
        ({"membership": np.zeros(N)}, "membership must be"),
        ({"membership": np.zeros((N, 2), dtype=bool)}, "membership and models disagree"),
        ({"log_probs": np.where(np.arange(N)[:, None] == 3, np.nan, ROWS)}, "unfit"),
        ({"log_probs": np.where(np.arange(N)[:, None] == 3, np.inf, ROWS)}, "unfit"),
        ({"log_probs": ROWS[0]}, "must be floats"),
        ({"log_probs": ROWS.astype(object)}, "cannot read"),
        ({"ids": np.array(["a"] * N)}, "distinct"),
        ({"features": np.zeros(N)}, "features must be"),
        ({"population": np.ones(N, dtype=bool)}, "a member in the population"),
    ],
)
def test_unfit_files_are_refused_by_name(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(BadSignalsFile, match=why):
        SignalsFile.read(stored(tmp_path, **changed))


@pytest.mark.parametrize("name", ["signals.npz", "signals.parquet"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing more", b"\x80\x04cos\nsystem\n"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadSignalsFile, match="cannot read"):
        SignalsFile.read(tmp_path / name)


def test_records_are_matched_by_their_ids(tmp_path: Path) -> None:
    ids = np.array([f"r{i}" for i in range(N)])
    file = SignalsFile.read(stored(tmp_path, ids=ids))
    labels = file.labels

    def records(rows: list[int], **changed: Any) -> Records:
        texts = [f"text {row}" for row in rows]
        return Records(**{"inputs": texts, "ids": tuple(ids[rows].tolist()), "labels": labels[rows]} | changed)

    sides = file.beside(records([4, 0, 2]), records([1, 3]))
    np.testing.assert_array_equal(sides.members.log_probs, file.log_probs[[4, 0, 2], 0])
    assert sides.nonmembers.texts == ["text 1", "text 3"]
    assert sides.members.features is not None
    for members, why in (
        (records([4, 1]), "a record on the other side"),
        (records([4, 0], ids=("r4", "new")), "1 unknown ids"),
    ):
        with pytest.raises(ShapeMismatch, match=why):
            file.beside(members, records([1, 3]))
    with pytest.raises(BadLabels, match="r4"):
        file.beside(records([4, 0], labels=(labels[[4, 0]] + 1) % C), records([1, 3]))
