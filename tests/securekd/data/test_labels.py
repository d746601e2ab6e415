"""The class map comes from public places, and every private row must fit it."""

from typing import Any

import pytest

from securekd.data.labels import class_map, labels
from securekd.errors import DataError


def dataset(values: list[Any], names: list[str] | None = None) -> Any:
    from datasets import ClassLabel, Dataset, Features

    features = None if names is None else Features({"label": ClassLabel(names=names)})
    return Dataset.from_dict({"label": values}, features=features)


def test_declared_classes_come_first_and_keep_their_order() -> None:
    declared, plain = dataset([0, 1], ["z", "a", "unused"]), dataset(["a", "z"])
    assert class_map("label", [plain, declared], [plain]) == ("z", "a", "unused")
    assert labels(declared, "label", ("a", "z"), "test").tolist() == [1, 0]
    assert labels(plain, "label", ("z", "a", "unused"), "test").tolist() == [1, 0]


def test_undeclared_classes_come_from_public_rows_only() -> None:
    private, public = dataset(["a", "b", "secret"]), dataset(["b", "a", None])
    classes = class_map("label", [private], [public])
    assert classes == ("a", "b")
    with pytest.raises(DataError, match=r"'secret' of the private rows.*data\.transfer"):
        labels(private, "label", classes, "private")


def test_whole_numbers_are_ordered_as_numbers() -> None:
    assert class_map("label", [], [dataset([10, 9, -1, 2])]) == ("-1", "2", "9", "10")
    assert class_map("label", [], [dataset(["10", "9", "x"])]) == ("10", "9", "x")
    assert labels(dataset([2.0, 10.0]), "label", ("2", "10"), "test").tolist() == [0, 1]


def test_bad_labels() -> None:
    with pytest.raises(
        DataError, match=r"no label column 'class' in the data; its columns are 'label': set data\.label"
    ):
        class_map("class", [], [dataset(["a", "b"]), dataset(["a"])])
    with pytest.raises(DataError, match=r"no label column 'class'.*'label'.*data\.label"):
        labels(dataset(["a"]), "class", ("a", "b"), "private")
    with pytest.raises(DataError, match="1 of 2 test rows have no label"):
        labels(dataset(["a", None]), "label", ("a", "b"), "test")
    with pytest.raises(DataError, match="1 of 2 private rows have no label"):
        labels(dataset([0, -1], ["a", "b"]), "label", ("a", "b"), "private")
    with pytest.raises(DataError, match=r"1 classes in column 'label' \(a\)"):
        class_map("label", [], [dataset(["a", "a"])])
