"""What a cell means does not depend on where it stands, on who wrote the file, or on which rows a draw took."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd.data import load_federated
from securekd.data.cells import (
    alike,
    listed,
    mostly_numbers,
    name_of,
    names_of,
    number_of,
    numbers_of,
    range_of,
    scaled,
)
from securekd.data.tables import Number, fit_table
from securekd.errors import DataError
from securekd.settings.data import Column, Data, Partition

MISSING = ("", "  ", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "\xa0", "\ufeff")


def arrow(*values: Any) -> Any:
    import pyarrow as pa

    return pa.chunked_array([pa.array(list(values))])


def dataset(**columns: list[Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns)


@pytest.mark.parametrize("word", MISSING)
def test_the_usual_words_for_missing_are_missing_everywhere(word: str) -> None:
    assert name_of(word) is None
    found = numbers_of(arrow("1", word, "3"), "column 'x'")
    assert found[[0, 2]].tolist() == [1, 3]
    assert np.isnan(found[1])


@pytest.mark.parametrize("word", ["None", "none", "?", ".", "-", "--", "nil", "Null", "na"])
def test_among_numbers_further_words_are_missing_but_they_may_be_names(word: str) -> None:
    assert np.isnan(numbers_of(arrow("1", word), "column 'x'")[1])
    assert name_of(word) == word


def test_a_declared_category_is_one_whatever_it_is_called() -> None:
    rows = dataset(country=["NA", "DE", "", None])
    encoder = fit_table(("country",), {"country": Column(categories=("NA", "DE"))}, rows)
    assert encoder.encode(rows).tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]


NUMBERS = {"26": 26.0, " 26 ": 26.0, "+26": 26.0, "26.": 26.0, ".5": 0.5, "-1e3": -1000.0, "1E+2": 100.0, "inf": np.inf}
NUMBERS |= {"-Infinity": -np.inf, "26\xa0": 26.0, "007": 7.0}


@pytest.mark.parametrize(("cell", "value"), NUMBERS.items())
def test_numbers_as_they_are_written(cell: str, value: float) -> None:
    assert numbers_of(arrow("1", cell), "column 'x'")[1] == value == number_of(cell)


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        ("26,000", "thousands separators"),
        ("1,234,567.5", "thousands separators"),
        ("1'234", "thousands separators"),
        ("26 000", "thousands separators"),
        ("27,3", "decimal point"),
        ("1.234,5", "decimal point"),
        (",5", "decimal point"),
        ("<5", "limit of detection"),
        (">= 100", "limit of detection"),
        ("≤0.1", "limit of detection"),
        ("5 kg", "without units"),
        ("$5", "without units"),
        ("30%", "without units"),
        ("old", "leave a cell empty"),
        ("1_000", "leave a cell empty"),
        ("٣", "ASCII digits"),
        ("５３", "ASCII digits"),
        ("1’234", "thousands separators"),
        ("1,23,456", "thousands separators"),
        ("€5", "without units"),
        ("5 %", "without units"),
        ("(34)", "minus sign"),
        ("01.02.2020", "leave a cell empty"),
        ("#DIV/0!", "leave a cell empty"),
        ("2020-01-01", "leave a cell empty"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_with_the_remedy(cell: str, remedy: str) -> None:
    with pytest.raises(DataError, match=r"column 'x' is read as numbers, and 1 of 3 values are none") as caught:
        numbers_of(arrow("1", cell, "2"), "column 'x'")
    assert repr(cell) in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


HEAD = ("age", "colour", "label")
BODY = [(str(20 + i % 60), ("red", "blue")[i % 2], ("a", "b")[i % 3 % 2]) for i in range(89)]


@pytest.mark.parametrize("word", ["NA", "#N/A", "n/a", "NULL", "", "?"])
@pytest.mark.parametrize("seed", range(3))
def test_one_missing_word_among_numbers_leaves_the_column_one_of_numbers(
    write_csv: Callable[..., str], word: str, seed: int
) -> None:
    """Whether the draw put it into the transfer set or not."""
    body = [HEAD, (word, "red", "a"), *BODY]
    data = load_federated(Data(source=write_csv(body), transfer=30, test=20), 3, seed)
    assert data.input_shape == (3,), "a number and two colours"
    rows = np.concatenate([split.inputs for split in (*data.clients, data.transfer, data.test)])
    ids = np.concatenate([split.ids for split in (*data.clients, data.transfer, data.test)])
    assert rows[ids == 0, 0] == 0.5
    assert np.unique(rows[:, 0]).size > 20


@pytest.mark.parametrize("word", ["26,000", "27,3", "<5", "#DIV/0!", "x"])
def test_what_is_refused_does_not_depend_on_the_draw(write_csv: Callable[..., str], word: str) -> None:
    body = [HEAD, (f'"{word}"', "red", "a"), *BODY]
    settings = Data(source=write_csv(body), transfer=30, test=20)
    for seed in range(5):
        with pytest.raises(DataError, match=r"table\.csv': column 'age' is read as numbers, and 1 of ") as caught:
            load_federated(settings, 3, seed)
        assert repr(word) in str(caught.value)


def test_a_column_most_of_whose_cells_are_numbers_is_one_of_numbers() -> None:
    assert mostly_numbers(arrow("1", "2", "x"))
    assert mostly_numbers(arrow("1", "NA", "NA"))
    assert not mostly_numbers(arrow("1", "x"))
    assert not mostly_numbers(arrow("x", "y", "1"))
    assert not mostly_numbers(arrow(None, "NA"))
    assert mostly_numbers(arrow(1, 2))


@pytest.mark.parametrize("name", ["2", "ill", "ä", "New York"])
@pytest.mark.parametrize("spell", ["{}", " {}", "{} ", "\t{}\xa0", "\ufeff{}"])
def test_names_are_the_same_with_white_space_around_them(name: str, spell: str) -> None:
    assert name_of(spell.format(name)) == name


def test_whole_numbers_are_one_name_however_they_are_stored() -> None:
    assert {name_of(value) for value in (1, 1.0, "1", "1.0", " 1.00", "1.", np.float32(1), np.int64(1))} == {"1"}
    assert name_of("01") == "01", "a code with a leading zero stays as it is"
    assert name_of("1.5") == name_of(1.5) == "1.5"
    assert name_of("-0.0") == name_of("-0") == "-0"
    assert name_of(2**60 + 1) == str(2**60 + 1)


def test_composed_and_decomposed_letters_are_one_name() -> None:
    assert name_of("Charite\u0301") == name_of("Charit\u00e9") == "Charité"


@given(st.lists(st.none() | st.text(max_size=6) | st.sampled_from([*MISSING, "1.0", "1"]), max_size=8))
def test_a_name_is_its_own_name_and_a_column_reads_cell_by_cell(cells: list[str | None]) -> None:
    import pyarrow as pa

    found = names_of(pa.chunked_array([pa.array(cells, pa.string())]))
    assert found == [name_of(cell) for cell in cells]
    for name in found:
        assert name is None or name_of(name) == name


@given(st.floats(allow_nan=False) | st.integers(-(10**25), 10**25))
def test_every_number_that_python_writes_is_read_back(number: float) -> None:
    assert numbers_of(arrow(str(number)), "column 'x'")[0] == float(number)
    assert number_of(str(number)) == float(number)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
def test_whole_numbers_of_any_size_are_scaled_exactly(cells: list[int | None]) -> None:
    import pyarrow as pa

    for column in (pa.array(cells, pa.int64()), pa.array([None if c is None else str(c) for c in cells], pa.string())):
        values = pa.chunked_array([column])
        present = [c for c in cells if c is not None]
        found = range_of(values, "column 'x'")
        if found is None:
            assert not present
            continue
        low, high = found
        assert (low, high) == (min(present), max(present))
        inside = scaled(values, low, high, "column 'x'")
        for cell, value in zip(cells, inside, strict=True):
            if cell is None:
                assert np.isnan(value)
            else:
                assert value == pytest.approx((cell - min(present)) / ((max(present) - min(present)) or 1), abs=1e-12)


@pytest.mark.parametrize("start", [2**53 + 1, 2**60, 1_700_000_000_000_000_000, -(2**62)])
def test_integers_beyond_2_to_the_53_keep_their_distances(start: int) -> None:
    rows = dataset(t=[start + i for i in (0, 1, 2, 4)])
    encoder = fit_table(("t",), {}, rows)
    assert encoder.columns == (Number("t", start, start + 4),)
    assert encoder.encode(rows)[:, 0].tolist() == [0.0, 0.25, 0.5, 1.0]


def test_declared_ranges_of_time_stamps_are_exact() -> None:
    start = 1_700_000_000_000_000_001
    rows = dataset(t=[start - 5, start, start + 25, start + 100, None])
    encoder = fit_table(("t",), {"t": Column(low=start, high=start + 100)}, rows)
    assert encoder.encode(rows)[:, 0].tolist() == [0.0, 0.0, 0.25, 1.0, 0.5]
    assert isinstance(Column(low=0, high=1).low, float), "small ones are floats, as ever"


def test_unsigned_integers_and_declared_ranges_beyond_2_to_the_53() -> None:
    import pyarrow as pa
    from datasets import Dataset

    rows = Dataset(pa.table({"u": pa.array([2**63, 2**64 - 1, None, 0], pa.uint64())}))
    encoder = fit_table(("u",), {"u": Column(low=0, high=2.0**64)}, rows)
    assert encoder.encode(rows)[:, 0].tolist() == pytest.approx([0.5, 1.0, 0.5, 0.0])


ALIKE = [("ill", "ill."), ("ill", "Ill"), ("New York", "New  York"), ("1.5", "1.50"), ("7", "007")]
DIFFERENT = [("a", "A"), ("C", "C++"), ("1", "2"), ("ill", "well"), ("St. Mary", "St Mary"), ("?", "!"), (".", ",")]


@pytest.mark.parametrize("two", ALIKE)
def test_names_that_people_take_for_one(two: tuple[str, str]) -> None:
    assert alike(two) == two


@pytest.mark.parametrize("two", DIFFERENT)
def test_names_that_people_tell_apart(two: tuple[str, str]) -> None:
    assert alike(two) is None


@pytest.mark.parametrize("other", ["0.0", " 0", "0.", "0\xa0"])
def test_one_class_in_two_files_stays_one(write_csv: Callable[..., str], other: str) -> None:
    """Labels 0 and 1 in one file, 0.0 and 1.0 in another."""
    train = write_csv([("x", "label"), *((i, i % 2) for i in range(60))], "train.csv")
    test = write_csv([("x", "label"), *((i + 0.5, other.replace("0", str(i % 2), 1)) for i in range(30))], "test.csv")
    data = load_federated(Data(source=train, test_source=test, transfer=20), 2, 0)
    assert data.classes == ("0", "1")
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [int(i - 60) % 2 for i in data.test.ids]


@pytest.mark.parametrize("dot", ["ill.", "Ill", "ILL", "ill;"])
def test_one_class_spelt_twice_is_refused(write_csv: Callable[..., str], dot: str) -> None:
    def file(name: str, ill: str, start: int) -> str:
        return write_csv([("x", "label"), *((i, (ill, "well")[i % 2]) for i in range(start, start + 60))], name)

    one, other = file("one.csv", "ill", 0), file("other.csv", dot, 100)
    for settings in (
        Data(source=one, test_source=other, transfer=20),
        Data(source=other, transfer_source=one, transfer=20, test_source=file("third.csv", "ill", 200)),
    ):
        with pytest.raises(DataError, match="look like one name spelt twice") as caught:
            load_federated(settings, 2, 0)
        assert repr(dot) in str(caught.value)


def test_one_institution_is_one_client(write_csv: Callable[..., str]) -> None:
    sites = ("north", " north", "south", "south\xa0")
    body = [("x", "site", "label"), *((i, sites[i % 4], "ab"[i // 4 % 2]) for i in range(80))]
    settings = Data(
        source=write_csv(body, "sites.csv"), transfer=20, test=10, partition=Partition(kind="column", column="site")
    )
    assert load_federated(settings, None, 0).client_names == ("north", "south")
    body = [("x", "site", "label"), *((i, ("north", "North", "south")[i % 3], "ab"[i // 4 % 2]) for i in range(80))]
    settings = settings.model_copy(update={"source": write_csv(body, "spelt.csv")})
    with pytest.raises(DataError, match="'North' and 'north' in the partition column 'site' look like one"):
        load_federated(settings, None, 0)


@pytest.mark.parametrize("values", [[f"{i / 7:.4f}" for i in range(60)], [f"subject {i}" for i in range(60)]])
def test_a_label_of_measurements_or_texts_is_refused_in_one_short_line(
    write_csv: Callable[..., str], values: list[str]
) -> None:
    source = write_csv([("x", "label"), *enumerate(values)])
    with pytest.raises(DataError, match=r"different values in \d+ public rows, such as .*classes are needed") as caught:
        load_federated(Data(source=source, transfer=30, test=20), 2, 0)
    assert len(str(caught.value)) < 300


def test_many_classes_are_classes(write_csv: Callable[..., str]) -> None:
    source = write_csv([("x", "label"), *((i, f"class {i % 40}") for i in range(400))])
    assert len(load_federated(Data(source=source, transfer=200, test=100), 2, 0).classes) == 40
    source = write_csv([("x", "label"), *((i, i % 10 / 2) for i in range(400))], "stars.csv")
    assert load_federated(Data(source=source, transfer=200, test=100), 2, 0).classes[:3] == ("0", "0.5", "1")


def test_one_column_of_numbers_is_a_table_and_keeps_its_rows(write_csv: Callable[..., str]) -> None:
    """Read as texts, equal numbers counted as copies of public rows."""
    source = write_csv([("x", "label"), *((i % 10, ("a", "b")[i % 2]) for i in range(300))])
    data = load_federated(Data(source=source, transfer=50, test=50), 3, 0)
    assert (data.modality, data.input_shape) == ("tabular", (1,))
    assert sum(map(len, data.clients)) == 200


def test_one_column_of_categories_is_a_table_and_keeps_its_rows(write_csv: Callable[..., str]) -> None:
    cities = ("New York", "Rome", "Bern")
    source = write_csv([("x", "label"), *((cities[i % 3], ("a", "b")[i % 2]) for i in range(300))])
    data = load_federated(Data(source=source, transfer=50, test=50), 3, 0)
    assert (data.modality, data.input_shape) == ("tabular", (3,))
    assert sum(map(len, data.clients)) == 200


def test_one_column_of_texts_is_text_though_some_are_numbers(write_csv: Callable[..., str]) -> None:
    texts = ["2024", "NA", *(f"sentence number {i}" for i in range(118))]
    source = write_csv([("t", "label"), *((text, "ab"[i % 2]) for i, text in enumerate(texts))])
    data = load_federated(Data(source=source, transfer=40, test=20, vocabulary=300), 2, 0)
    assert data.modality == "text"


def test_what_is_passed_over_is_said(write_csv: Callable[..., str]) -> None:
    """An index column, copies of public texts, categories that nobody declared: each with its count."""
    body = [("", "text", "label"), *((i, f"the same sentence {i % 40}", "ab"[i % 2]) for i in range(80))]
    data = load_federated(Data(source=write_csv(body, "texts.csv"), transfer=30, test=5, vocabulary=300), 2, 0)
    assert len([note for note in data.notes if "copies of public rows were left out of the private set" in note]) == 1
    assert len([note for note in data.notes if "column 1 ('')" in note and "left out" in note]) == 1
    assert sum(map(len, data.clients)) + 35 + sum(int(n.split()[1]) for n in data.notes if "copies" in n) == 80
    body = [("sex", "x", "label"), *((("f", "m", "x", "y")[i % 4], i, "ab"[i % 3 % 2]) for i in range(80))]
    settings = Data(source=write_csv(body), columns={"sex": Column(categories=("f", "m"))}, transfer=20, test=20)
    tested, private = load_federated(settings, 2, 0).notes
    assert "column 'sex'" in private
    assert "of 40 private values" in private
    assert "of 20 test values" in tested


SPELT = [("Male", "male"), ("Male", "Male."), ("New York", "New  York"), ("type 1", "Type 1")]


@pytest.mark.parametrize("two", SPELT)
def test_a_category_that_is_spelt_otherwise_elsewhere_is_refused(
    write_csv: Callable[..., str], two: tuple[str, str]
) -> None:
    def file(name: str, word: str, start: int) -> str:
        rows = ((("other", word)[i % 2], i, "ab"[i % 3 % 2]) for i in range(start, start + 60))
        return write_csv([("sex", "x", "label"), *rows], name)

    one, other = file("one.csv", two[0], 0), file("other.csv", two[1], 100)
    for settings in (
        Data(source=one, test_source=other, transfer=20),
        Data(source=other, transfer_source=one, transfer=20, test=20),
        Data(source=other, columns={"sex": Column(categories=("other", two[0]))}, transfer=20, test=20),
    ):
        with pytest.raises(DataError, match=r"other\.csv.*look like one name spelt twice"):
            load_federated(settings, 2, 0)


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("true", "false"), ("True", "False")])
def test_booleans_are_the_same_from_r_pandas_and_json(
    write_csv: Callable[..., str], tmp_path: Path, words: tuple[str, str]
) -> None:
    train = write_csv([("smoker", "label"), *((words[i % 2], "ab"[i // 2 % 2]) for i in range(60))], "train.csv")
    lines = (f'{{"smoker": {("true", "false")[i % 2]}, "label": "{"ab"[i // 2 % 2]}"}}\n' for i in range(40))
    (tmp_path / "test.jsonl").write_text("".join(lines))
    data = load_federated(Data(source=train, test_source=str(tmp_path / "test.jsonl"), transfer=20), 2, 0)
    assert data.notes == ()
    assert data.test.inputs.sum(axis=1).tolist() == [1] * 40
    assert data.test.inputs[:, 1].tolist() == [float(i % 2 == 0) for i in (data.test.ids - 60)]


@pytest.mark.parametrize("cell", ["{},5", "{},000", "€{}", "{} kg", "{}%", "1’{}0", "５{}", "({})", "<{}"])
def test_a_whole_column_of_numbers_that_are_written_otherwise_is_refused(
    write_csv: Callable[..., str], cell: str
) -> None:
    """As categories, up to all private rows would count as none; as a text, equal ones as copies."""
    cells = [f'"{cell.format(10 + i % 80)}"' for i in range(120)]
    for body in (
        [("dose", "x", "label"), *((c, i, "ab"[i % 2]) for i, c in enumerate(cells))],
        [("dose", "label"), *((c, "ab"[i % 2]) for i, c in enumerate(cells))],
    ):
        with pytest.raises(DataError, match="column 'dose' is read as numbers, and .* values are none"):
            load_federated(Data(source=write_csv(body), transfer=60, test=20), 2, 0)


@pytest.mark.parametrize(
    "words", [("1st", "2nd", "3rd"), ("5 mg", "10 mg", "20 mg"), ("1A", "2B", "3C"), ("v1.2.3", "1.2.4")]
)
def test_words_that_begin_with_a_digit_are_categories(write_csv: Callable[..., str], words: tuple[str, ...]) -> None:
    body = [("class", "x", "label"), *((words[i % len(words)], i, "ab"[i % 2]) for i in range(120))]
    data = load_federated(Data(source=write_csv(body), transfer=60, test=20), 2, 0)
    assert data.input_shape == (len(words) + 1,)


def test_codes_of_many_digits_are_told_apart() -> None:
    assert alike(["1541815603606036480", "1541815603606036481"]) is None
    assert alike(["0E1", "0E2"]) is None
    assert alike([str(2**53), str(2**53 + 1)]) is None


def test_a_declared_range_of_which_one_end_is_a_float_is_exact_too() -> None:
    low, high = 1_700_000_000_000_000_000, 1_700_000_000_000_000_100
    rows = dataset(t=[low - 7, low + 25, high, high + 9])
    encoder = fit_table(("t",), {"t": Column(low=low, high=high)}, rows)
    assert encoder.encode(rows)[:, 0].tolist() == [0.0, 0.25, 1.0, 1.0]


def test_long_lists_are_cut() -> None:
    assert listed([f"column {i}" for i in range(800)]).endswith("... (800 in all)")
    assert len(listed(["x" * 1000] * 800)) < 900
    assert listed(["a", "b"]) == "'a', 'b'"
