"""Files of an audit are matched by name, and read by the rules of a run's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securekd.audit.auditing import AuditRequest, audit_deployment
from securekd.audit.files import Columns, read_records, read_sides
from securekd.errors import DataError
from securekd_attacks.audit import AuditSettings
from securekd_attacks.targets import Records

N = 120
Row = dict[str, Any]
Writer = Callable[[Path, list[Row]], Path]


def csv(path: Path, rows: list[Row]) -> Path:
    lines = [",".join(rows[0]), *(",".join("" if row[n] is None else str(row[n]) for n in rows[0]) for row in rows)]
    path.with_suffix(".csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.with_suffix(".csv")


def jsonl(path: Path, rows: list[Row]) -> Path:
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.with_suffix(".jsonl")


def parquet(path: Path, rows: list[Row]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as writer

    writer.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


WRITERS = (csv, jsonl, parquet)


def people(rows: int, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        {
            "age": round(rng.normal(50, 9), 2),
            "weight": round(rng.normal(70, 9), 2),
            "label": int(rng.integers(2)),
            "id": f"{seed}-{i}",
        }
        for i in range(rows)
    ]


def reordered(rows: list[Row], names: tuple[str, ...] = ("weight", "id", "age", "label")) -> list[Row]:
    return [{name: row[name] for name in names} for row in rows]


def by_age(inputs: Any) -> np.ndarray:
    """A model that leaks nothing: it looks at the first column, the age."""
    p = 1 / (1 + np.exp(-(np.asarray(inputs)[:, 0] - 50) / 10))
    return np.stack([1 - p, p], axis=1)


@pytest.mark.parametrize("write", WRITERS)
def test_columns_in_another_order_are_no_leak(tmp_path: Path, write: Writer) -> None:
    members, others = people(N, 1), people(N, 2)
    settings = AuditSettings(attacks=("loss", "entropy"))
    results = []
    for name, nonmembers in (("same", others), ("swapped", reordered(others))):
        paths = write(tmp_path / "in", members), write(tmp_path / name, nonmembers)
        asked = AuditRequest("tests.securekd.audit.test_files:by_age", *paths, settings=settings)
        results.append(audit_deployment(asked, tmp_path / f"audit-{name}"))
    same, swapped = results
    assert [each.auc for each in same.attacks] == [each.auc for each in swapped.attacks]
    assert swapped.best.epsilon_lower == 0.0
    assert swapped.columns == ("age", "weight")
    assert "age, weight" in (tmp_path / "audit-swapped" / "audit.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("other", WRITERS)
def test_every_two_formats_give_the_same_records(tmp_path: Path, write: Writer, other: Writer) -> None:
    rows = people(5, 1)
    one, two = read_sides([write(tmp_path / "a", rows), other(tmp_path / "b", reordered(rows))], Columns())
    assert one.digest() == two.digest()
    assert one.columns == two.columns == ("age", "weight")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("age", "id", "label"), "it lacks 'weight'"),
        (("age", "weight", "more", "label"), "it has 'more' besides"),
        (("Age", "weight", "label"), "it lacks 'age' and has 'Age' besides"),
    ],
)
def test_columns_that_differ_are_refused_by_name(
    tmp_path: Path, write: Writer, names: tuple[str, ...], said: str
) -> None:
    rows = [{name: row.get(name.lower(), 0) for name in names} for row in people(5, 2)]
    with pytest.raises(DataError, match=said) as caught:
        read_sides([write(tmp_path / "in", people(5, 1)), write(tmp_path / "out", rows)], Columns())
    assert "out." in str(caught.value)
    assert "in." in str(caught.value)


def test_the_population_is_matched_too(tmp_path: Path) -> None:
    paths = [csv(tmp_path / f"{i}", reordered(people(4, i)) if i else people(4, i)) for i in range(3)]
    assert {side.columns for side in read_sides(paths, Columns())} == {("age", "weight")}
    paths[2] = csv(tmp_path / "2", [{"age": 1, "label": 0}])
    with pytest.raises(DataError, match="lacks 'weight'"):
        read_sides(paths, Columns())


def test_arrays_without_names_do_not_go_with_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "out.npz", inputs=np.zeros((3, 2)) + np.arange(3)[:, None], labels=[0, 1, 0])
    asked = AuditRequest(
        "tests.securekd.audit.test_files:by_age", csv(tmp_path / "in", people(4, 0)), tmp_path / "out.npz"
    )
    with pytest.raises(DataError, match="sides differ in their columns"):
        audit_deployment(asked, tmp_path / "audit")


def test_rows_with_words_reach_the_target_in_the_members_order(tmp_path: Path) -> None:
    rows = [{"age": 31, "sex": "f", "label": 0}, {"age": 44, "sex": " m", "label": 1}]
    members, others = read_sides(
        [jsonl(tmp_path / "in", rows), jsonl(tmp_path / "out", reordered(rows, ("sex", "label", "age")))], Columns()
    )
    assert [list(row) for row in others.inputs] == [["age", "sex"]] * 2
    assert list(others.inputs) == list(members.inputs) == [{"age": 31, "sex": "f"}, {"age": 44, "sex": "m"}]


@pytest.mark.parametrize("cell", ["", "NA", "#N/A", "?", None])
@pytest.mark.parametrize("write", WRITERS)
def test_a_missing_number_on_one_side_keeps_both_sides_alike(tmp_path: Path, write: Writer, cell: str | None) -> None:
    rows = people(6, 1)
    if write is parquet:
        rows = [row | {"age": str(row["age"])} for row in rows]
    sides = read_sides(
        [write(tmp_path / "in", people(6, 0)), write(tmp_path / "out", [rows[0] | {"age": cell}, *rows[1:]])], Columns()
    )
    assert {side.kind for side in sides} == {"array 2"}
    assert np.isnan(np.asarray(sides[1].inputs)[0, 0])
    assert np.isfinite(np.asarray(sides[1].inputs)[1:]).all()


@pytest.mark.parametrize("cell", ["<5", "27;3", "old"])
def test_a_text_among_numbers_is_refused_with_its_file_and_column(tmp_path: Path, cell: str) -> None:
    rows = people(6, 1)
    paths = [csv(tmp_path / "in", people(6, 0)), csv(tmp_path / "out", [rows[0] | {"age": cell}, *rows[1:]])]
    with pytest.raises(DataError, match=r"column 'age' of '.*out\.csv' is read as numbers") as caught:
        read_sides(paths, Columns())
    assert repr(cell) in str(caught.value)


def test_missing_numbers_are_audited(tmp_path: Path) -> None:
    """By a callable (as NaN), and by the classifier that never sees the model."""
    paths = []
    for seed, name in enumerate(("in", "out")):
        rows = people(N, seed)
        paths.append(
            csv(
                tmp_path / name, [row | {"weight": None if i % 7 == 0 else row["weight"]} for i, row in enumerate(rows)]
            )
        )
    record = audit_deployment(
        AuditRequest("tests.securekd.audit.test_files:by_age", *paths, settings=AuditSettings(attacks=("loss",))),
        tmp_path / "audit",
    )
    assert record.blind is not None
    assert not record.blind.distribution_shift


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize(
    "text", ["text,label\nhello,0\nthere,1\n", "text, label\nhello, 0\nthere, 1\n", "label,text\n0,hello\n1,there\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_marks_and_spaces_leave_the_label_a_label(tmp_path: Path, text: str, mark: str, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes((("" if encoding == "utf-16" else mark) + text).encode(encoding))
    found = read_records(tmp_path / "a.csv", Columns())
    assert (found.kind, list(found.inputs)) == ("text", ["hello", "there"])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]


def test_semicolons_are_refused_in_an_audit_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age;label\n1;0\n2;1\n")
    with pytest.raises(DataError, match="set apart by semicolons"):
        read_records(tmp_path / "a.csv", Columns())


def test_an_index_column_is_no_part_of_a_record(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",age,label\n0,31,0\n1,44,1\n")
    found = read_records(tmp_path / "a.csv", Columns())
    assert found.columns == ("age",)
    assert len(found.notes) == 1


@pytest.mark.parametrize("label", ["1", "1.0", " 1", 1, 1.0, True, "+1", "1.000e+00", "TRUE"])
def test_class_numbers_as_they_are_stored(tmp_path: Path, label: object) -> None:
    found = read_records(jsonl(tmp_path / "a", [{"text": "x", "label": label}]), Columns())
    assert found.labels is not None
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize("label", ["one", 0.5, -1, 10**12, "1,0", "١"])
def test_labels_that_are_no_class_numbers(tmp_path: Path, label: object) -> None:
    with pytest.raises(DataError, match=r"label '.*' in row 1 is no integer from 0"):
        read_records(jsonl(tmp_path / "a", [{"text": "x", "label": label}]), Columns())


def test_a_record_without_a_name_among_named_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2 has no 'id'"):
        read_records(jsonl(tmp_path / "a", [{"text": "x", "id": 1}, {"text": "y", "id": None}]), Columns())


def test_pictures_in_parquet_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'image' of .* holds bytes .* which no target takes"):
        read_records(parquet(tmp_path / "a", [{"image": b"\x89PNG", "label": 0}]), Columns())


def test_dates_are_texts_in_rows(tmp_path: Path) -> None:
    import datetime

    found = read_records(parquet(tmp_path / "a", [{"day": datetime.date(2020, 1, 2), "age": 3.0}]), Columns())
    assert list(found.inputs) == [{"day": "2020-01-02", "age": 3.0}]
    assert isinstance(found, Records)


@pytest.mark.parametrize(
    ("head", "option", "said"),
    [
        (("Label", "age"), {}, "has a column 'Label', and no 'label': rename it, or give --label Label"),
        (("Text", "label"), {}, "has a column 'Text', and no 'text': rename it, or give --text Text"),
        (("ID", "age"), {}, "has a column 'ID', and no 'id': rename it, or give --id ID"),
        (("age", "class"), {"label": "clas"}, "has no column 'clas', which --label names"),
    ],
)
def test_a_label_that_is_called_otherwise_is_no_feature(
    tmp_path: Path, head: tuple[str, ...], option: dict[str, str], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_records(csv(tmp_path / "a", [dict.fromkeys(head, 1)]), Columns(**option))


MIXED = [
    {"age": 31, "weight": 1.5, "smoker": True, "sex": "f", "label": 0},
    {"age": 44, "weight": 2, "smoker": False, "sex": "m", "label": 1},
    {"age": None, "weight": 3.25, "smoker": True, "sex": None, "label": 1},
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("other", WRITERS)
def test_rows_with_words_are_of_one_kind_in_all_formats(tmp_path: Path, write: Writer, other: Writer) -> None:
    """As texts in one file and as numbers in another, sides would differ where the people are alike."""
    one, two = read_sides([write(tmp_path / "a", MIXED), other(tmp_path / "b", MIXED)], Columns())
    assert list(one.inputs) == list(two.inputs)
    assert one.ids == two.ids, "a record that is on both sides is seen to be"
    found = dict(one.inputs[1])  # type: ignore[call-overload]
    if write is other is csv:
        assert found == {"age": "44", "weight": "2", "smoker": "False", "sex": "m"}
    else:
        smoker = "False" if csv in (write, other) else False
        assert found == {"age": 44, "weight": 2.0, "smoker": smoker, "sex": "m"}
        assert type(found["smoker"]) is type(smoker)
    assert dict(one.inputs[2])["age"] is None  # type: ignore[call-overload]
    assert dict(one.inputs[2])["sex"] is None  # type: ignore[call-overload]


@pytest.mark.parametrize("other", WRITERS)
def test_another_format_of_the_same_people_is_no_leak(tmp_path: Path, other: Writer) -> None:
    rng = np.random.default_rng(0)
    sides = [
        [
            {
                "age": int(rng.integers(20, 90)),
                "dose": round(rng.random(), 6),
                "sex": "fm"[int(rng.integers(2))],
                "label": int(rng.integers(2)),
            }
            for _ in range(N)
        ]
        for _ in range(2)
    ]
    for side in sides:
        for number, row in enumerate(side):
            row["id"] = f"{len(side)}-{number}-{row['dose']}"
    paths = csv(tmp_path / "in", sides[0]), other(tmp_path / "out", sides[1])
    settings = AuditSettings(attacks=("loss",))
    record = audit_deployment(
        AuditRequest("tests.securekd.audit.test_files:by_kind", *paths, settings=settings), tmp_path / "audit"
    )
    assert record.attacks[0].auc.low <= 0.5 <= record.attacks[0].auc.high
    assert record.best.epsilon_lower == 0.0


def by_kind(inputs: Any) -> np.ndarray:
    """A model that would tell sides apart by how their cells are stored, and by nothing else."""
    p = np.array([0.9 if isinstance(row["age"], str) else 0.6 for row in inputs])
    return np.stack([1 - p, p], axis=1)


def test_dates_in_one_file_and_texts_in_another_are_refused(tmp_path: Path) -> None:
    import datetime

    paths = [
        parquet(tmp_path / "in", [{"day": datetime.date(2020, 1, 2), "sex": "f"}]),
        csv(tmp_path / "out", [{"day": "2020-01-03", "sex": "m"}]),
    ]
    with pytest.raises(DataError, match=r"column 'day' holds date32.* in one file and text in another"):
        read_sides(paths, Columns())


@pytest.mark.parametrize("cell", ["<5", "26;000", "27.3.1"])
def test_a_text_among_numbers_is_refused_beside_words_too(tmp_path: Path, cell: str) -> None:
    rows = [{"age": i, "sex": "fm"[i % 2]} for i in range(9)]
    with pytest.raises(DataError, match=r"column 'age' of '.*out\.csv' is read as numbers"):
        read_sides([csv(tmp_path / "in", rows), csv(tmp_path / "out", [*rows, {"age": cell, "sex": "f"}])], Columns())


def test_what_goes_to_no_target_is_said(tmp_path: Path) -> None:
    found = read_records(csv(tmp_path / "a", [{"text": "x", "age": 3, "label": 1}]), Columns())
    assert found.notes == ("a.csv: beside 'text', 'age' went to no target",)


def test_rows_that_differ_beyond_2_to_the_53_are_different_records(tmp_path: Path) -> None:
    found = read_records(jsonl(tmp_path / "a", [{"x": 2**60 + i} for i in range(3)]), Columns())
    assert [dict(row)["x"] for row in found.inputs] == [2**60 + i for i in range(3)]  # type: ignore[call-overload]
    assert len(set(found.ids)) == 3


def test_equal_rows_are_told_apart_by_an_id(tmp_path: Path) -> None:
    rows = [{"age": 31}, {"age": 31}]
    with pytest.raises(DataError, match="keep it once, or give records ids of their own"):
        read_records(csv(tmp_path / "a", rows), Columns())
    assert len(read_records(csv(tmp_path / "b", [row | {"id": i} for i, row in enumerate(rows)]), Columns())) == 2
