"""Signals files: what they may hold, and everything that they may not."""

import contextlib
import io
import time
import zipfile
from decimal import Decimal
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
        ({"probs": np.exp(ROWS)}, "one thing twice .*log_probs and probs.*store one"),
        ({"loss": np.zeros(N)}, r"no part of a signals file \(got loss\); leave that out"),
        ({"labels": np.full(N, C)}, "labels must be 12 integers from 0 to 2"),
        ({"labels": np.zeros(N)}, "labels must be"),
        ({"labels": np.zeros(N - 1, dtype=int)}, "labels must be"),
        ({"membership": np.zeros(N)}, "membership must be"),
        ({"membership": np.arange(N) % 3}, "integers 0 and 1 .*from 0 to 2.*store True for each sample that is one"),
        ({"membership": np.array(True)}, "membership must be"),
        ({"labels": np.ones(N)}, r"store labels.astype\(int\)"),
        ({"labels": np.ones(N, dtype=bool)}, "labels must be"),
        ({"labels": np.full(N, 2**63, dtype=np.uint64)}, "labels must be"),
        ({"labels": np.zeros(N, dtype="M8[s]")}, "labels must be"),
        ({"log_probs": np.zeros((N, C), dtype=bool)}, "must be floats"),
        ({"log_probs": ROWS.astype(complex)}, "must be floats"),
        ({"log_probs": np.zeros((N, 0))}, "empty"),
        ({"log_probs": np.zeros((N, 1))}, "two classes or more"),
        ({"log_probs": np.zeros((N, 0, C)), "membership": np.zeros((N, 0), dtype=bool)}, "empty"),
        ({"log_probs": np.zeros((0, C)), "labels": np.zeros(0, int), "membership": np.zeros(0, bool)}, "no records"),
        ({"ids": np.array("a")}, "ids must be 12 texts or integers"),
        ({"ids": np.array([[str(i)] for i in range(N)])}, "ids must be 12 texts or integers"),
        ({"ids": np.array([b"%d" % i for i in range(N)])}, r"store ids.astype\(str\)"),
        ({"ids": np.array([str(i // 2) for i in range(N)])}, "distinct, one each .*got 0"),
        ({"features": np.where(np.arange(N)[:, None] == 3, np.nan, ROWS)}, "not finite in row 3, column 0"),
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


@pytest.mark.parametrize(
    "changed",
    [
        {"log_probs": ROWS.astype(">f8")},
        {"log_probs": ROWS.astype(np.longdouble)},
        {"log_probs": np.asfortranarray(ROWS)},
        {"log_probs": None, "probs": np.exp(ROWS).astype(np.float16)},
        {"log_probs": None, "logits": np.zeros((N, C), dtype=np.int8)},
        {"log_probs": None, "logits": np.zeros((N, C), dtype=np.float16)},
        {"membership": (np.arange(N) % 2 == 0).astype(np.uint8)},
        {"membership": (np.arange(N) % 2 == 0).astype(">i4")},
        {"labels": arrays()["labels"].astype(">i2")},
        {"ids": np.array([f"row {i}" for i in range(N)]).astype(">U8")},
        {"population": np.zeros(N, dtype=int)},
    ],
)
def test_arrays_as_people_store_them_mean_the_same(tmp_path: Path, changed: dict[str, Any]) -> None:
    given, plain = SignalsFile.read(stored(tmp_path, **({"log_probs": ROWS} | changed))), arrays(log_probs=ROWS)
    np.testing.assert_allclose(given.log_probs[:, 0], ROWS, atol=1e-3)
    np.testing.assert_array_equal(given.labels, plain["labels"])
    np.testing.assert_array_equal(given.membership[:, 0], plain["membership"])
    assert given.ids == tuple(f"row {i}" for i in range(N))
    assert not given.population.any()
    kinds = [given.log_probs.dtype, given.labels.dtype, given.membership.dtype]
    assert kinds == [np.float64, np.int64, np.bool_]
    assert all(kind.isnative for kind in kinds)


def in_parquet(folder: Path, **changed: Any) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    plain = arrays(log_probs=None, probs=np.tile([0.5, 0.25, 0.25], (N, 1)), ids=np.array([f"r{i}" for i in range(N)]))
    columns = {name: pa.array(value.tolist()) for name, value in plain.items()}
    parquet.write_table(pa.table(columns | changed), folder / "signals.parquet")
    return folder / "signals.parquet"


def test_parquet_columns_of_any_type_mean_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    rows, labels = [[0.5, 0.25, 0.25]] * N, arrays()["labels"].tolist()
    exact = [[Decimal("0.5"), Decimal("0.25"), Decimal("0.25")]] * N
    names, inside = [f"r{i}" for i in range(N)], [i % 2 == 0 for i in range(N)]
    plain = SignalsFile.read(in_parquet(tmp_path))
    for changed in (
        {"probs": pa.array(rows, pa.large_list(pa.float64()))},
        {"probs": pa.array(rows, pa.list_(pa.float64(), C))},
        {"probs": pa.array(rows, pa.list_(pa.float32()))},
        {"probs": pa.array([np.array(row, np.float16) for row in rows], pa.list_(pa.float16()))},
        {"probs": pa.array(exact, pa.list_(pa.decimal128(6, 4)))},
        {"probs": pa.array(exact, pa.list_(pa.decimal256(40, 4)))},
        {"ids": pa.array(names, pa.large_string())},
        {"ids": pa.array(names, pa.string_view())},
        {"ids": pa.array(names).dictionary_encode()},
        {"labels": pa.array(labels, pa.int8())},
        {"labels": pa.array(labels).dictionary_encode()},
        {"labels": pa.array([Decimal(label) for label in labels])},
        {"membership": pa.array([int(each) for each in inside])},
        {"membership": pa.chunked_array([inside[:5], inside[5:]])},
    ):
        found = SignalsFile.read(in_parquet(tmp_path, **changed))
        assert (found.ids, found.labels.tolist()) == (plain.ids, plain.labels.tolist()), changed
        np.testing.assert_array_equal(found.log_probs, plain.log_probs)
        np.testing.assert_array_equal(found.membership, plain.membership)


def test_parquet_cells_that_say_nothing_are_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    row = [0.5, 0.25, 0.25]
    for changed, why in (
        ({"probs": pa.array([row] * 7 + [None] + [row] * 4)}, "probs is empty in row 7"),
        ({"probs": pa.array([row] * 7 + [[0.5, None, 0.5]] + [row] * 4)}, "probs is empty in row 7"),
        ({"probs": pa.array([row] * 7 + [[0.5, 0.5]] + [row] * 4)}, "probs holds lists of 2 to 3 values"),
        ({"labels": pa.array([0] * 11 + [None])}, "labels is empty in row 11"),
        ({"membership": pa.array([None] + [True] * 11)}, "membership is empty in row 0"),
        ({"labels": pa.array([0] * N, pa.timestamp("s"))}, "labels holds timestamp"),
        ({"labels": pa.array([Decimal("0.5")] * N)}, "labels must be 12 integers"),
        ({"ids": pa.array([b"%d" % i for i in range(N)])}, "ids holds binary"),
        ({"probs": pa.array([["0.5", "0.25", "0.25"]] * N)}, "probs holds list<.*string>|probs holds string"),
        ({"ids": pa.array([{"a": i} for i in range(N)])}, "ids holds struct"),
    ):
        with pytest.raises(BadSignalsFile, match=why):
            SignalsFile.read(in_parquet(tmp_path, **changed))


def announcing(folder: Path, *shape: int) -> Path:
    """A .npz file of some hundred bytes whose array says that it has so many values."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "signals.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log_probs.npy", header.getvalue())
    return folder / "signals.npz"


def test_small_files_do_not_become_large_arrays(tmp_path: Path) -> None:
    start = time.monotonic()
    for shape in ((1_250_000_000,), (1 << 40, 1 << 40), (10**9, 2, 3)):
        with pytest.raises(BadSignalsFile, match="bytes that would become"):
            SignalsFile.read(announcing(tmp_path, *shape))
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    shared = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2_000_000, np.int8)), pa.array(["x" * 1_000]))
    for stored_schema in (True, False):  # as a dictionary, and as texts of which many are the same
        parquet.write_table(pa.table({"ids": shared}), tmp_path / "signals.parquet", store_schema=stored_schema)
        with pytest.raises(BadSignalsFile, match="bytes that would become 2,000,000,000"):
            SignalsFile.read(tmp_path / "signals.parquet")
    assert time.monotonic() - start < 30.0


@pytest.mark.parametrize("shape", [(-5,), (1 << 40, 1 << 40, 0), (3,)])
def test_headers_that_promise_what_is_not_there_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadSignalsFile, match="cannot read"):
        SignalsFile.read(announcing(tmp_path, *shape))


def test_a_large_file_may_be_large(tmp_path: Path) -> None:
    rows = np.tile([0.0, -np.inf], (200_000, 1))  # deflates to a hundredth, and is 3 MB
    given = {"log_probs": rows, "labels": np.zeros(len(rows), int), "membership": np.arange(len(rows)) % 2 == 0}
    np.savez_compressed(tmp_path / "signals.npz", **given)
    assert len(SignalsFile.read(tmp_path / "signals.npz").ids) == len(rows)


def test_damaged_and_foreign_archives_are_refused(tmp_path: Path) -> None:
    whole = stored(tmp_path).read_bytes()
    path = tmp_path / "signals.npz"
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(BadSignalsFile):  # or the byte says nothing: a date, a compressor's version
            SignalsFile.read(path)
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(BadSignalsFile, match="cannot read"):
            SignalsFile.read(path)
    for name in ("readme.txt", "labels.npy", "labels"):
        path.write_bytes(whole)
        with (
            pytest.warns() if name == "labels.npy" else contextlib.nullcontext(),
            zipfile.ZipFile(path, "a") as archive,
        ):
            archive.writestr(name, b"x")
        with pytest.raises(BadSignalsFile, match=f"{name}, twice or no array"):
            SignalsFile.read(path)


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


MENDED = {
    "labels as text": {"labels": arrays()["labels"].astype(str)},
    "labels from 1": {"labels": arrays()["labels"] + 1},
    "labels from 1, as text": {"labels": (arrays()["labels"] + 1).astype(str)},
    "labels from 1, as floats": {"labels": arrays()["labels"] + 1.0},
    "one-hot labels": {"labels": np.eye(C)[arrays()["labels"]]},
    "one-hot labels, as integers": {"labels": np.eye(C, dtype=int)[arrays()["labels"]]},
    "a column of labels": {"labels": arrays()["labels"][:, None]},
    "labels as floats": {"labels": arrays()["labels"].astype(float)},
    "membership as signs": {"membership": np.where(arrays()["membership"], 1, -1)},
    "membership as signs, as floats": {"membership": np.where(arrays()["membership"], 1.0, -1.0)},
    "membership as words": {"membership": np.where(arrays()["membership"], "member", "nonmember")},
    "membership as other words": {"membership": np.where(arrays()["membership"], "in", "out")},
    "membership as text": {"membership": arrays()["membership"].astype(str)},
    "membership as digits": {"membership": arrays()["membership"].astype(int).astype(str)},
    "membership as floats": {"membership": arrays()["membership"].astype(float)},
    "models first": {"log_probs": np.tile(arrays()["log_probs"], (2, 1, 1)), "membership": np.ones((N, 2), bool)},
    "classes first": {"log_probs": arrays()["log_probs"].T},
}


@pytest.mark.parametrize("what", MENDED)
def test_the_remedy_that_is_named_works(tmp_path: Path, what: str) -> None:
    changed = MENDED[what]
    with pytest.raises(BadSignalsFile) as refused:
        SignalsFile.read(stored(tmp_path, **changed))
    remedy = str(refused.value).rpartition("; store ")[2]
    name = next(name for name in changed if name in remedy)
    mended = eval(remedy, {}, {name: changed[name]})
    found = SignalsFile.read(stored(tmp_path, **(changed | {name: mended})))
    np.testing.assert_array_equal(found.labels, arrays()["labels"])
    if name == "membership":
        np.testing.assert_array_equal(found.membership[:, 0], arrays()["membership"])
    np.testing.assert_array_equal(found.log_probs[:, 0], arrays()["log_probs"])


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": np.array(["cat", "dog", "cat"] * (N // 3))},
        {"labels": np.array(["1", "9", "1"] * (N // 3))},
        {"labels": arrays()["labels"] + 0.5},
        {"labels": np.where(np.arange(N) == 3, np.nan, 0.0)},
        {"labels": np.array(0)},
        {"labels": np.array("a")},
        {"labels": np.zeros(0)},
        {"labels": np.zeros(0, dtype="U1")},
        {"labels": np.array([b"1"] * N)},
        {"labels": np.zeros(N, dtype=complex)},
        {"labels": np.array([np.timedelta64(1)] * N)},
        {"labels": np.zeros(N, dtype=[("a", int)])},
        {"membership": np.array(["a", "b", "c"] * (N // 3))},
        {"membership": np.array([1, 2] * (N // 2))},
        {"membership": np.array("a")},
        {"membership": np.full(N, np.nan)},
        {"membership": np.zeros(N, dtype=[("a", int)])},
        {"population": np.array(["x"] * N)},
        {"population": np.zeros((N, 2), dtype=bool)},
        {"ids": np.zeros(N, dtype=[("a", int)])},
        {"ids": np.zeros(N)},
        {"features": np.array([["x"]] * N)},
        {"log_probs": np.array([["x", "y", "z"]] * N)},
        {"log_probs": np.zeros((N, C), dtype=[("a", int)])},
    ],
)
def test_no_message_of_a_refusal_fails_itself_and_none_promises_what_does_not_mend(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    with pytest.raises(BadSignalsFile) as refused:
        SignalsFile.read(stored(tmp_path, **changed))
    name = next(iter(changed))
    said = str(refused.value)
    assert name in said
    assert len(said) <= 300 + len(str(tmp_path))
    if name != "ids":
        assert f"store {name}." not in said or name == "log_probs"


@pytest.mark.parametrize(
    ("kind", "bad", "why"),
    [
        ("probs", np.nan, r"probabilities are NaN or \+inf in 1 rows, first in row 5 \(got nan\)"),
        ("probs", -0.25, r"below zero in 1 rows, first in row 5 \(got -0.25\)"),
        ("probs", 0.9, r"do not sum to one in 1 rows, first in row 5 \(got "),
        ("logits", np.inf, r"logits are NaN or \+inf in 1 rows, first in row 5 \(got inf\)"),
        ("log_probs", np.nan, r"log-probabilities are NaN or \+inf in 1 rows, first in row 5"),
    ],
)
def test_one_bad_row_of_a_file_is_named_with_its_value(tmp_path: Path, kind: str, bad: float, why: str) -> None:
    rows = np.random.default_rng(3).dirichlet(np.ones(C), size=N)
    rows = rows if kind == "probs" else np.log(rows)
    rows[5, 0] = bad if bad != 0.9 else rows[5, 0] + 0.9
    with pytest.raises(BadSignalsFile, match=why):
        SignalsFile.read(stored(tmp_path, **{"log_probs": None, kind: rows}))


@pytest.mark.parametrize("how", ["filtered", "shuffled", "by date", "two levels"])
def test_a_table_that_pandas_filtered_is_read(tmp_path: Path, how: str) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    plain = arrays()
    table = pd.DataFrame({"log_probs": list(plain["log_probs"]), **{x: plain[x] for x in ("labels", "membership")}})
    if how == "by date":
        table.index = pd.date_range("2024-01-01", periods=N)
    elif how == "two levels":
        table.index = pd.MultiIndex.from_arrays([np.arange(N) // 2, np.arange(N) % 2])
    else:
        table = (
            table[table.labels >= 0].sample(frac=1.0, random_state=0)
            if how == "shuffled"
            else table[table.index % 3 > 0]
        )
    table.to_parquet(tmp_path / "signals.parquet")
    found = SignalsFile.read(tmp_path / "signals.parquet")
    np.testing.assert_array_equal(found.labels, table.labels.to_numpy())
    np.testing.assert_array_equal(found.log_probs[:, 0], np.stack(table.log_probs.to_list()))


@pytest.mark.parametrize("name", ["loss", "label", "index", "p0"])
def test_a_column_that_no_signals_file_has_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSignalsFile, match=rf"no part of a signals file \(got {name}\); leave that out"):
        SignalsFile.read(stored(tmp_path, **{name: np.zeros(N)}))
