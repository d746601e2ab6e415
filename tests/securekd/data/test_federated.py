"""From settings to the data of a federation: splits, seeds, encodings, errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securekd.data import Examples, FederatedData, load_federated
from securekd.data.examples import transfer_digest
from securekd.errors import DataError
from securekd.settings.data import Column, Data, Partition


def check(data: FederatedData) -> None:
    """What holds for every federation."""
    splits = [*data.clients, data.transfer, data.test]
    ids = np.concatenate([split.ids for split in splits])
    assert len(np.unique(ids)) == len(ids)
    assert len(data.client_names) == len(data.clients) == len(set(data.client_names))
    for split in splits:
        assert split.inputs.shape == (len(split), *data.input_shape)
        for array in (split.inputs, split.ids, split.labels):
            assert array is None or not array.flags.writeable
        if split.labels is not None:
            assert set(split.labels) <= set(range(len(data.classes)))
    assert len(data.transfer_digest) == 32


def rows_of(data: FederatedData) -> list[int]:
    return sorted(np.concatenate([client.ids for client in data.clients]).tolist())


def test_default_digits() -> None:
    data = load_federated(Data(), 10, 0)
    check(data)
    assert (data.modality, data.input_shape, data.vocabulary) == ("image", (1, 8, 8), None)
    assert data.classes == tuple("0123456789")
    assert (len(data.transfer), len(data.test)) == (400, 1797 // 5)
    assert sum(map(len, data.clients)) == 1797 - 400 - 1797 // 5
    assert data.client_names[0] == "client-01"
    assert data.transfer.labels is None
    from sklearn.datasets import load_digits

    digits = load_digits()
    assert np.array_equal(data.test.labels, digits.target[data.test.ids])
    assert np.abs(data.test.inputs[:, 0] - digits.images[data.test.ids] / 16).max() <= 0.5 / 255 + 1e-6


def test_the_cut_depends_on_the_seed_alone() -> None:
    data = load_federated(Data(), 10, 3)
    other = load_federated(Data(partition=Partition(kind="dirichlet", alpha=1.0)), 4, 3)
    assert np.array_equal(data.transfer.ids, other.transfer.ids)
    assert np.array_equal(data.test.ids, other.test.ids)
    assert rows_of(data) == rows_of(other)
    assert data.transfer_digest == other.transfer_digest
    again = load_federated(Data(), 10, 3)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(data.clients, again.clients, strict=True))
    assert not np.array_equal(data.transfer.ids, load_federated(Data(), 10, 4).transfer.ids)


def test_counts_are_honoured() -> None:
    data = load_federated(Data(transfer=100, test=50, private=600, transfer_labels=True), 5, 0)
    assert (len(data.transfer), len(data.test), sum(map(len, data.clients))) == (100, 50, 600)
    assert data.transfer.labels is not None


def test_institutions_of_a_table(numbers_csv: Callable[..., str]) -> None:
    settings = Data(source=numbers_csv(60), transfer=20, test=10, partition=Partition(kind="column", column="site"))
    data = load_federated(settings, None, 0)
    check(data)
    assert data.client_names == ("north", "south")
    assert [{i % 2 for i in client.ids} for client in data.clients] == [{0}, {1}]
    assert data.input_shape == (4,), "x and three colours: neither the label nor the institution is an input"
    with pytest.raises(DataError, match="5 clients are asked for"):
        load_federated(settings, 5, 0)


def test_private_rows_never_change_the_encoding(tmp_path: Path, write_csv: Callable[..., str]) -> None:
    """The private file is rewritten outside the range and the categories of the public one, and with gaps."""

    def rows(start: int, change: bool) -> list[tuple[object, ...]]:
        tame = [(i, ("u", "v")[i % 2], ("a", "b")[i % 2]) for i in range(start, start + 20)]
        return [
            ("x", "c", "label"),
            *([(None if x % 3 else 10**9 + x, f"new {x}", y) for x, _, y in tame] if change else tame),
        ]

    public, test = write_csv(rows(0, False), "public.csv"), write_csv(rows(100, False), "test.csv")

    def load(change: bool) -> FederatedData:
        source = write_csv(rows(200, change), "private.csv")
        return load_federated(Data(source=source, transfer_source=public, transfer=20, test_source=test), 2, 0)

    before, after = load(False), load(True)
    check(after)
    assert np.array_equal(before.transfer.inputs, after.transfer.inputs)
    assert np.array_equal(before.test.inputs, after.test.inputs)
    assert before.input_shape == after.input_shape == (3,)
    assert before.classes == after.classes
    assert before.transfer_digest == after.transfer_digest
    assert before.clients[0].inputs.tolist() != after.clients[0].inputs.tolist()


def test_declared_schema(numbers_csv: Callable[..., str]) -> None:
    columns = {"x": Column(low=0, high=600), "colour": Column(categories=("red", "blue"))}
    settings = Data(source=numbers_csv(60), inputs=("x", "colour"), columns=columns, transfer=20, test=10)
    data = load_federated(settings, 2, 0)
    assert data.input_shape == (3,)
    assert np.allclose(data.test.inputs[:, 0], data.test.ids / 600)


def test_texts(texts_csv: Callable[..., str]) -> None:
    data = load_federated(Data(source=texts_csv(60), transfer=20, test=10, max_tokens=12, vocabulary=300), 3, 0)
    check(data)
    assert (data.modality, data.input_shape, data.classes) == ("text", (12,), ("money", "sport"))
    assert data.vocabulary is not None
    assert data.vocabulary > data.test.inputs.max()


def test_sources_of_their_own(image_folder: Callable[..., str]) -> None:
    source, transfer, test = (image_folder(20, name=name, seed=i) for i, name in enumerate("abc"))
    data = load_federated(Data(source=source, transfer_source=transfer, transfer=8, test_source=test), 3, 0)
    check(data)
    assert (rows_of(data), len(data.transfer), len(data.test)) == (list(range(20)), 8, 20)
    assert data.test.ids.min() >= 40
    shared = load_federated(Data(source=source, transfer_source=test, transfer=8, test_source=test), 3, 0)
    check(shared)
    assert (len(shared.transfer), len(shared.test)) == (8, 12)


def test_copies_of_public_images_are_not_private(image_folder: Callable[..., str], tmp_path: Path) -> None:
    folder = Path(image_folder(20))
    for file in sorted((folder / "cat").iterdir()):
        (folder / "cat" / f"copy-{file.name}").write_bytes(file.read_bytes())
    data = load_federated(Data(source=str(folder), transfer=8, test=6), 2, 0)
    check(data)
    splits = [
        data.transfer,
        data.test,
        Examples(
            "image", np.concatenate([c.inputs for c in data.clients]), None, np.arange(sum(map(len, data.clients)))
        ),
    ]
    contents = [{row.tobytes() for row in split.inputs} for split in splits]
    assert not contents[0] & contents[1]
    assert not contents[0] & contents[2]
    assert not contents[1] & contents[2]


@pytest.mark.parametrize("kind", ["image", "table", "text"])
def test_overlapping_sources_are_refused(
    kind: str, image_folder: Callable[..., str], numbers_csv: Callable[..., str], texts_csv: Callable[..., str]
) -> None:
    """Two of the other source's rows are in the private one; tables and texts run on where those end."""
    if kind == "image":
        source, other = image_folder(40, name="a"), image_folder(20, name="b", seed=1)
        for i in (0, 2):
            name = f"cat/{i:03}.png"
            (Path(other) / name).write_bytes((Path(source) / name).read_bytes())
    else:
        write = numbers_csv if kind == "table" else texts_csv
        source, other = write(40, name="a.csv"), write(20, name="b.csv", start=38)
    remedy = "remove them from one of the two sources"
    with pytest.raises(DataError, match=f"[12] of 20 transfer rows are private rows too: {remedy}"):
        load_federated(Data(source=source, transfer_source=other, transfer=20, test=1), 2, 0)
    with pytest.raises(
        DataError, match=f"[12] of 20 test rows are private rows too: {remedy}|transfer rows are test rows"
    ):
        load_federated(Data(source=source, transfer=1, test_source=other), 2, 0)
    rest = Data(source=source, transfer=10, test=5)
    assert sum(map(len, load_federated(rest, 2, 0).clients)) == 25


def test_digest_binds_inputs_order_and_classes() -> None:
    inputs = np.arange(6, dtype=np.float32).reshape(3, 2) / 10
    base = Examples("tabular", inputs, None, np.arange(3))
    digest = transfer_digest(base, ("a", "b"))
    assert digest == transfer_digest(
        Examples("tabular", inputs.copy(), np.zeros(3, np.int64), np.arange(3) + 9), ("a", "b")
    )
    changed = inputs.copy()
    changed[2, 1] += 1e-6
    others = [
        transfer_digest(base.take([1, 0, 2]), ("a", "b")),
        transfer_digest(base, ("b", "a")),
        transfer_digest(base, ("ab",)),
        transfer_digest(Examples("tabular", changed, None, np.arange(3)), ("a", "b")),
        transfer_digest(Examples("tabular", inputs.reshape(2, 3), None, np.arange(2)), ("a", "b")),
    ]
    assert len({digest, *others}) == 6


def test_examples_hold_what_they_say() -> None:
    with pytest.raises(ValueError, match="float32"):
        Examples("tabular", np.zeros((2, 2)), None, np.arange(2))
    with pytest.raises(ValueError, match="labels are int64"):
        Examples("tabular", np.zeros((2, 2), np.float32), np.zeros(3, np.int64), np.arange(2))
    taken = Examples("text", np.eye(3, dtype=np.int64), np.arange(3), np.arange(3)).take(np.array([True, False, True]))
    assert (len(taken), taken.ids.tolist(), taken.labels.tolist()) == (2, [0, 2], [0, 2])


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"transfer": 1797},
        r"'digits' has 1797 rows, and the splits take 1797 \(transfer\) \+ 359 \(test\) \+ 1 \(private\)",
    ),
    ({"label": "digit"}, "no label column 'digit'|images beside other columns"),
    ({"inputs": ("image", "label")}, "names the label"),
    ({"inputs": ("pixels",)}, "no column 'pixels' in the data; it has 'image', 'label'"),
    ({"columns": {"image": Column(low=0, high=1)}}, r"data\.columns declares a table"),
    ({"partition": Partition(kind="column", column="site")}, "no column 'site'"),
    ({"private": 5}, "too few for 10 clients"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_bad_requests(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_federated(Data(**change), 10, 0)
    assert "\n" not in str(caught.value)


def test_bad_tables_and_mixtures(
    numbers_csv: Callable[..., str], write_csv: Callable[..., str], texts_csv: Callable[..., str]
) -> None:
    table, counts = numbers_csv(60), {"transfer": 20, "test": 10}
    for change, said in (
        ({"image_size": 8}, r"data\.image_size = 8 is for images"),
        ({"label": "outcome"}, "label column 'outcome'|column 'outcome'"),
        ({"transfer_source": "digits"}, "no column 'x'"),
        ({"columns": {"weight": Column(low=0, high=1)}}, "declares 'weight'"),
    ):
        with pytest.raises(DataError, match=said):
            load_federated(Data(source=table, **counts, **change), 2, 0)
    unlabelled = write_csv([("x", "y", "label"), *((i, i, None if i == 30 else i % 2) for i in range(60))], "u.csv")
    with pytest.raises(DataError, match="1 of .* rows have no label"):
        load_federated(Data(source=unlabelled, **counts), 2, 0)
    only = write_csv([("label",), *((i % 2,) for i in range(60))], "only.csv")
    with pytest.raises(DataError, match="no input column is left"):
        load_federated(Data(source=only, **counts), 2, 0)


def test_a_labelled_transfer_set_of_one_class_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{i / 50},{'ab'[i >= 20]}\n" for i in range(50))
    (tmp_path / "all.csv").write_text("x,label\n" + rows)
    (tmp_path / "one.csv").write_text("x,label\n" + "".join(f"{(i + 1) / 51},a\n" for i in range(20)))
    settings = Data(source=str(tmp_path / "all.csv"), transfer_source=str(tmp_path / "one.csv"), transfer=20, test=10)
    assert load_federated(settings, 2, 0).transfer.labels is None
    with pytest.raises(DataError, match=r"all 20 rows of the transfer set are of one class.*data.transfer_labels"):
        load_federated(settings.model_copy(update={"transfer_labels": True}), 2, 0)
