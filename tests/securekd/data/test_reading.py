"""Files of rows as people have them: each is read rightly, or refused in one line that says what to do."""

import codecs
import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from securekd.data import load, load_federated
from securekd.data.cells import mostly_numbers
from securekd.data.columns import kind_of, names, numbers, values
from securekd.data.reading import read_rows
from securekd.errors import DataError
from securekd.settings.data import Data, Partition

PLAIN = "name,label\nÄnne,1\nBo,2\n"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = read_rows(path).table.to_pydict()
    return found


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_byte_order_mark_says_how_to_read(tmp_path: Path, mark: bytes, encoding: str, quoted: bool) -> None:
    text = PLAIN.replace("Bo", '"Bo"') if quoted else PLAIN
    expected = {"name": ["Änne", "Bo"], "label": ["1", "2"]}
    assert rows(written(tmp_path / "a.csv", mark + text.encode(encoding))) == expected
    lines = '{"name": "Änne", "label": "1"}\n{"name": "Bo", "label": "2"}\n'
    assert rows(written(tmp_path / "a.jsonl", mark + lines.encode(encoding))) == expected


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("text", [PLAIN, PLAIN.replace("Bo", '"Bo"'), "\n\n" + PLAIN, PLAIN + "\n\n", PLAIN.rstrip()])
def test_line_ends_and_blank_lines(tmp_path: Path, ending: str, text: str) -> None:
    path = written(tmp_path / "a.csv", text.replace("\n", ending))
    assert rows(path) == {"name": ["Änne", "Bo"], "label": ["1", "2"]}


@pytest.mark.parametrize(
    "text",
    ["x, label\n1, a\n2, b\n", 'x, label\n1, "a"\n2, "b"\n', "x,label \n1,a\n2,b\n", '\ufeffx,"label"\n1,a\n2,b\n'],
)
def test_a_space_after_the_comma_keeps_the_label(tmp_path: Path, text: str) -> None:
    data = load(str(written(tmp_path / "a.csv", text)))
    assert data.column_names == ["x", "label"]
    assert names(data, "label") == ["a", "b"]
    assert numbers(data, "x").tolist() == [1, 2]


@pytest.mark.parametrize(
    "text", ["a;b\n1;2\n", '"a";"b"\n"1";"2"\n', "a;b;c\n1;2,5;x\n", "a\tb\n1\t2\n", "a|b\n1|2\n", "a;b,c;d\n1;2,5;3\n"]
)
def test_columns_that_are_set_apart_by_something_else_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        DataError, match=r"a\.csv.*its columns are set apart by (semicolons|tabs|bars): save it with commas"
    ):
        read_rows(written(tmp_path / "a.csv", text))


@pytest.mark.parametrize(
    "text", ["notes (a;b;c),label\nx,1\n", '"a;b;c",label\nx,1\n', 'text,label\n"a;b;c","x;y;z"\n', "t|u\nx\n"]
)
def test_other_separators_inside_cells_are_no_separators(tmp_path: Path, text: str) -> None:
    assert len(rows(written(tmp_path / "a.csv", text))) <= 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2,3\n", "row 1 has other columns than the first line names: 3 cells for 2 names"),
        ("a,b\n1,2\n3\n", "row 2 has other columns than the first line names: 1 cells for 2 names"),
        ('a,b\n1,"2\n3,4\n', "line 3: unexpected end of data"),
        ('a,b\n1,"2"x\n', "line 2: ',' expected after '\"'"),
        ("a,a\n1,2\n", "more than one column 'a'"),
        ("a, a\n1,2\n", "more than one column 'a'"),
        ("a,,b\n1,2,3\n", "column 2 ('') has no name, and values such as '2': name it"),
        ("a,Unnamed: 1\n1,x\n", "column 2 ('Unnamed: 1') has no name, and values such as 'x': name it"),
        (b"a,b\n1,\xe4\n", "line 2 is not UTF-8 (byte 0xe4): save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "zero bytes"),
        (codecs.BOM_UTF16_LE + b"a", "is not UTF-16"),
        ("", "is empty"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(written(tmp_path / "a.csv", text))
    assert said in str(caught.value)
    assert "a.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        (",x,label\n0,5,a\n1,6,b\n", 1),
        ("Unnamed: 0,x,label\n7,5,a\n7,6,b\n", 1),
        ('"","x","label"\n"Mazda",5,"a"\n"Ford",6,"b"\n', 1),
        ("Unnamed: 0.1,Unnamed: 0,x,label\n0,0,5,a\n1,1,6,b\n", 2),
        ("x,label,\n5,a,\n6,b,\n", 0),
        ("x,label,Unnamed: 2\n5,a,\n6,b,\n", 0),
    ],
)
def test_an_index_that_pandas_or_r_wrote_is_no_feature(tmp_path: Path, text: str, left_out: int) -> None:
    found = read_rows(written(tmp_path / "a.csv", text))
    assert found.table.to_pydict() == {"x": ["5", "6"], "label": ["a", "b"]}
    assert len(found.notes) == left_out


def test_an_index_in_parquet_and_jsonl_is_no_feature_either(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"Unnamed: 0": [0, 1], "x": [5, 6]}, index=[3, 9])
    frame.to_parquet(tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == {"x": [5, 6]}
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    assert rows(tmp_path / "a.jsonl") == {"x": [5, 6]}


def test_a_text_of_megabytes_is_a_text(tmp_path: Path) -> None:
    long = "word " * 700_000
    for text in (f"text,label\n{long},1\nshort,2\n", f'text,label\n"{long}, and more",1\nshort,2\n'):
        assert len(rows(written(tmp_path / "a.csv", text))["text"][0]) >= len(long)
    lines = json.dumps({"text": long, "label": 1}) + "\n" + json.dumps({"text": "short", "label": 2}) + "\n"
    assert rows(written(tmp_path / "a.jsonl", lines))["text"] == [long, "short"]


@pytest.mark.parametrize("day", ["2020-01-01", "2020-01-01 10:00:00", "2020-01-01T10:00:00Z", "10:30"])
def test_strings_that_look_like_dates_are_strings(tmp_path: Path, day: str) -> None:
    """As texts, as institutions, as classes."""
    lines = "".join(
        json.dumps({"x": i, "visit": day.replace("1", str(i % 2 + 1)), "label": "ab"[i // 2 % 2]}) + "\n"
        for i in range(80)
    )
    source = str(written(tmp_path / "a.jsonl", lines))
    assert kind_of(load(source), "visit") == "string"
    by_visit = Data(source=source, transfer=20, test=10, partition=Partition(kind="column", column="visit"))
    assert load_federated(by_visit, None, 0).client_names == tuple(sorted({day.replace("1", d) for d in "12"}))
    assert (
        len(load_federated(Data(source=source, transfer=20, test=10, label="visit", inputs=("x",)), 2, 0).classes) == 2
    )


def parquet(path: Path, **columns: Any) -> str:
    import pyarrow as pa
    from pyarrow import parquet as writer

    writer.write_table(pa.table(columns), path)
    return str(path)


def types() -> dict[str, tuple[Any, list[str | None], list[float]]]:
    import pyarrow as pa

    nan = float("nan")
    numbers: list[float] = [1.5, 2.0, nan]
    cents = [decimal.Decimal("1.50"), decimal.Decimal("2.00"), None]
    return {
        "string_view": (pa.array(["1.5", "2", None], pa.string_view()), ["1.5", "2", None], numbers),
        "large_string": (pa.array(["1.5", "2", None], pa.large_string()), ["1.5", "2", None], numbers),
        "dictionary": (pa.array(["1.5", "2", None]).dictionary_encode(), ["1.5", "2", None], numbers),
        "dictionary of integers": (pa.array([5, 2, None]).dictionary_encode(), ["5", "2", None], [5, 2, nan]),
        "decimal32": (pa.array(cents, pa.decimal32(5, 2)), ["1.5", "2", None], numbers),
        "decimal128": (pa.array(cents, pa.decimal128(10, 2)), ["1.5", "2", None], numbers),
        "decimal256": (pa.array(cents, pa.decimal256(50, 2)), ["1.50", "2", None], numbers),
        "float16": (pa.array(np.array([1.5, 2, np.nan], np.float16)), ["1.5", "2", None], numbers),
        "int64": (
            pa.array([2**53 + 1, -(2**60), None]),
            [str(2**53 + 1), str(-(2**60)), None],
            [2.0**53, -(2.0**60), nan],
        ),
        "uint64": (
            pa.array([2**64 - 1, 2**63, None], pa.uint64()),
            [str(2**64 - 1), str(2**63), None],
            [2.0**64, 2.0**63, nan],
        ),
        "bool": (pa.array([True, False, None]), ["True", "False", None], [1, 0, nan]),
    }


@pytest.mark.parametrize("kind", types())
def test_columns_of_less_common_types_are_what_they_say(tmp_path: Path, kind: str) -> None:
    column, called, measured = types()[kind]
    data = load(parquet(tmp_path / "a.parquet", x=column))
    assert names(data, "x") == called
    np.testing.assert_array_equal(numbers(data, "x"), measured)
    assert mostly_numbers(values(data, "x"))


@pytest.mark.parametrize("kind", ["string_view", "large_string", "decimal128", "float16", "uint64"])
def test_a_source_of_ones_own_may_have_them_too(kind: str) -> None:
    import pyarrow as pa
    from datasets import Dataset

    column, called, measured = types()[kind]
    data = Dataset(pa.table({"x": column}))
    assert names(data, "x") == called
    np.testing.assert_array_equal(numbers(data, "x"), measured)
    assert mostly_numbers(values(data, "x"))


def test_dates_name_institutions_and_are_no_inputs(tmp_path: Path) -> None:
    import pyarrow as pa

    data = load(parquet(tmp_path / "a.parquet", day=pa.array([datetime.date(2020, 1, 2), None])))
    assert names(data, "day") == ["2020-01-02", None]
    with pytest.raises(DataError, match="column 'day' holds date32, which cannot be encoded"):
        kind_of(data, "day")


def test_integers_of_any_size_in_jsonl(tmp_path: Path) -> None:
    big = [2**53 + 1, 2**64, 10**25]
    data = load(str(written(tmp_path / "a.jsonl", "".join(json.dumps({"x": n}) + "\n" for n in big))))
    assert names(data, "x") == [str(n) for n in big]
    assert numbers(data, "x").tolist() == [float(n) for n in big]


def test_what_a_line_of_jsonl_lacks_is_missing(tmp_path: Path) -> None:
    lines = '{"x": 1, "c": "a"}\n{"c": "b"}\n\n{"x": null, "c": "c"}\n{"x": 2.5}\n{"x": NaN}\n'
    data = load(str(written(tmp_path / "a.jsonl", lines)))
    np.testing.assert_array_equal(numbers(data, "x"), [1, np.nan, np.nan, 2.5, np.nan])
    assert names(data, "c") == ["a", "b", "c", None, None]


@pytest.mark.parametrize("word", ["NA", "", "7", "#N/A"])
def test_numbers_and_words_for_missing_in_one_column_of_jsonl(tmp_path: Path, word: str) -> None:
    data = load(str(written(tmp_path / "a.jsonl", f'{{"x": 5}}\n{{"x": "{word}"}}\n')))
    np.testing.assert_array_equal(numbers(data, "x"), [5, 7 if word == "7" else np.nan])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"x": 1}\n{"x": "a"}\n', "column 'x' holds values of different kinds"),
        ('{"x": 1}\n{"x": true}\n', "column 'x' holds values of different kinds"),
        ('{"x": 1}\n{"x": [1]}\n', "column 'x' holds values of different kinds"),
        ('{"x": 1}\n[1]\n', "row 2 (line 2) is no JSON object"),
        ('[{"x": 1},\n{"x": 2}]\n', "line 1 is no JSON"),
        ('{"x": 1, "x": 2}\n', "line 1: the key 'x' stands twice"),
        ('{"x": 1}\n{"x": 2\n', "line 2 is no JSON"),
        ('{"x": ' + "9" * 5000 + "}\n", "line 1"),
        ('{"x": ' + "[" * 100_000 + "}\n", "line 1"),
        ('{"x": 1, " x": 2}\n', "more than one column 'x'"),
        ('{"x": [99999999999999999999]}\n', "too large"),
        ('{"x\\u0000": 1}\n', "has control characters in its name"),
    ],
)
def test_unfit_jsonl(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(written(tmp_path / "a.jsonl", lines))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


def test_sources_are_matched_by_name_and_a_further_column_is_refused(write_csv: Callable[..., str]) -> None:
    def file(head: tuple[str, ...], name: str, start: int) -> str:
        cells = {"x": lambda i: i, "y": lambda i: -i, "label": lambda i: "ab"[i % 2], "z": lambda i: 0}
        return write_csv([head, *(tuple(cells[h](i) for h in head) for i in range(start, start + 40))], name)

    one = file(("x", "y", "label"), "one.csv", 0)
    swapped = load_federated(Data(source=one, test_source=file(("y", "label", "x"), "two.csv", 50), transfer=15), 2, 0)
    assert swapped.test.inputs[:, 0].min() == 1.0, "x is beyond its public range, not y"
    for head, said in (
        (("x", "label"), "no column 'y'"),
        (("x", "y", "z", "label"), "has a column 'z' that other sources lack"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            load_federated(Data(source=one, test_source=file(head, "three.csv", 50), transfer=15), 2, 0)
        assert "three.csv" in str(caught.value)
    named = Data(source=one, test_source=file(("z", "y", "x", "label"), "four.csv", 50), transfer=15, inputs=("x", "y"))
    assert load_federated(named, 2, 0).input_shape == (2,)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@settings(max_examples=60)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.booleans())
@example([("", "")], True)
@example([("a,b", 'c"d'), ("\r\n", " x")], False)
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, body: list[tuple[str, str]], everywhere: bool
) -> None:
    import csv
    import io

    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL if everywhere else csv.QUOTE_MINIMAL)
    writer.writerows([("one", "two"), *body])
    path = written(tmp_path_factory.mktemp("csv") / "a.csv", out.getvalue())
    found = rows(path)
    for name, cells in zip(("one", "two"), zip(*body, strict=True), strict=True):
        # Cells without quotation marks lose the spaces after a comma.
        assert [(cell or "").lstrip(" ") for cell in found[name]] == [cell.lstrip(" ") for cell in cells]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sep=;\na;b\n1;2\n", "set apart by ';'"),
        ("a;b;c\n1;2;3\n" * 5 + "1;2\n" + "1;2;3\n" * 10, "set apart by semicolons"),
        ("x;y;label\n1;2;0\n3;4\n5;6;1\n", "set apart by semicolons"),
        ("\x1b$BL>A0\x1b(B,label\n1,a\n", "control characters in its name"),
        ("x y label\n5 1 0\n6 2 1\n", "set apart by spaces"),
        ("x^label\n5^0\n", "set apart by carets"),
        ("x:y:label\n5:1:0\n", "set apart by colons"),
        ("x\x01label\n5\x010\n", "set apart by control characters"),
        ("x，label\n5，0\n", "set apart by full-width commas"),
        ("Alter, Jahre;Größe, cm;label\n34,5;170,2;x\n35,5;171,2;y\n", "set apart by semicolons"),
        ("a,b\n1,2\na,b\n3,4\n", "row 2 repeats the names of the columns"),
        ('a,b\n1,"2"\na,b\n', "row 2 repeats the names of the columns"),
        ("a,b\nx,1,2\ny,3,4\n", "as R's write.table has it"),
        ("a,b\n1,2,\n3,4,\n", "each row ends in a comma too many"),
        ("# made by hand\na,b\n1,2\n", "leave out lines of comments"),
    ],
)
def test_separators_headers_and_commas_that_other_programs_write_are_refused_by_name(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(written(tmp_path / "a.csv", text))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 350


def test_the_remedy_for_semicolons_changes_no_cell(tmp_path: Path) -> None:
    import pandas as pd

    text = "plz;land;preis\n01234;NA;6.064,4\n00007;DE;26,000\n"
    path, new_path = written(tmp_path / "a.csv", text), tmp_path / "new.csv"
    with pytest.raises(DataError) as caught:
        read_rows(path)
    remedy = str(caught.value).partition("(pandas")[2].rpartition(" changes no cell")[0]
    exec("pandas" + remedy, {"pandas": pd, "path": path, "new_path": new_path})
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="encoding='utf-16'"):
        read_rows(path)
    assert rows(new_path) == {"plz": ["01234", "00007"], "land": ["NA", "DE"], "preis": ["6.064,4", "26,000"]}


def test_a_declaration_of_commas_is_no_row(tmp_path: Path) -> None:
    assert rows(written(tmp_path / "a.csv", "sep=,\na,b\n1,2\n")) == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize("name", ["index", "level_0", "rownames", "X", "...1", "Unnamed: 0_level_0"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_first_column_that_only_counts_the_rows_is_no_feature(tmp_path: Path, name: str, first: int) -> None:
    path = written(tmp_path / "a.csv", f"{name},x,label\n{first},5,a\n{first + 1},6,b\n")
    assert rows(path) == {"x": ["5", "6"], "label": ["a", "b"]}
    assert len(read_rows(path).notes) == 1


@pytest.mark.parametrize("values", [("0", "0"), ("5", "9"), ("1", "0")])
def test_a_column_called_index_that_counts_nothing_is_a_feature(tmp_path: Path, values: tuple[str, str]) -> None:
    path = written(tmp_path / "a.csv", f"index,label\n{values[0]},a\n{values[1]},b\n")
    assert rows(path) == {"index": list(values), "label": ["a", "b"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04abc", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0", "Excel"),
        (b"BZh9", "bzip2"),
    ],
)
def test_packed_files_are_called_by_what_they_are(tmp_path: Path, content: bytes, said: str) -> None:
    for name in ("a.csv", "a.jsonl"):
        with pytest.raises(DataError, match=f"it is no text but .*{said}"):
            read_rows(written(tmp_path / name, content * 9))


def test_a_folder_that_spark_wrote_is_no_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    with pytest.raises(DataError, match="folder of parts, as Spark writes one"):
        load(str(tmp_path / "x.parquet"))


def test_columns_of_types_that_nobody_asks_for_are_left_out(tmp_path: Path) -> None:
    import pyarrow as pa

    from securekd.data.sources import open_source

    kinds = pa.map_(pa.string(), pa.int64())
    path = parquet(tmp_path / "a.parquet", x=pa.array([1, 2]), m=pa.array([[("a", 1)], None], kinds))
    opened = open_source(path)
    assert opened.data.column_names == ["x"]
    assert len(opened.notes) == 1
    assert "'m'" in opened.notes[0]


def test_whole_numbers_beside_nan_stay_exact(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", "".join(f'{{"x": {2**60 + i}}}\n' for i in range(3)) + '{"x": NaN}\n')
    assert names(load(str(path)), "x") == [str(2**60 + i) for i in range(3)] + [None]
    assert names(load(str(written(tmp_path / "b.jsonl", '{"c": "a"}\n{"c": NaN}\n'))), "c") == ["a", None]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_ends_of_jsonl(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / "a.jsonl", f'{{"x": "\u2028"}}{ending}{{"x": "b"}}{ending}')
    assert rows(path) == {"x": ["\u2028", "b"]}


def test_what_json_can_write_and_no_text_can_hold_is_refused_by_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'x'"):
        read_rows(written(tmp_path / "a.jsonl", '{"x": "\\ud800"}\n'))
