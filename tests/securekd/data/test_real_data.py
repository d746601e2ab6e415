"""MNIST, AG News and Adult, from the folder that SECUREKD_DATA names or from ../shared/data; skipped where absent."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from securekd.data import load, load_federated
from securekd.data.images import fit_images
from securekd.settings.data import Data, Partition

FOLDER = Path(os.environ.get("SECUREKD_DATA") or Path(__file__).parents[4] / "shared" / "data")


def real(name: str) -> str:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"real data is absent: {path} (set SECUREKD_DATA)")
    return str(path)


def test_mnist() -> None:
    settings = Data(
        source=real("mnist/train.parquet"),
        test_source=real("mnist/test.parquet"),
        transfer=1000,
        test=1000,
        private=4000,
        partition=Partition(kind="dirichlet", alpha=0.5),
    )
    data = load_federated(settings, 10, 0)
    assert (data.input_shape, data.classes) == ((1, 28, 28), tuple("0123456789"))
    assert sum(map(len, data.clients)) == 4000
    test = load(settings.test_source or "")
    assert data.test.ids.min() >= 60_000
    for i in (0, 999):
        row = test[int(data.test.ids[i]) - 60_000]
        assert row["label"] == data.test.labels[i]
        assert np.array_equal(np.asarray(row["image"]), np.rint(data.test.inputs[i, 0] * 255))


@pytest.mark.slow
def test_all_of_mnist() -> None:
    settings = Data(source=real("mnist/train.parquet"), test_source=real("mnist/test.parquet"), transfer=5000)
    data = load_federated(settings, 10, 0)
    assert (sum(map(len, data.clients)), len(data.test)) == (55_000, 10_000)
    encoder = fit_images("image", None, load(settings.source).select(range(10)))
    assert encoder.shape == data.input_shape


@pytest.mark.parametrize("tokenizer", ["transfer", "bytes"])
def test_ag_news(tokenizer: str) -> None:
    source, test = real("ag_news/train.parquet"), real("ag_news/test.parquet")
    data = load_federated(Data(source=source, test_source=test, transfer=1000, tokenizer=tokenizer), 8, 0)
    assert data.classes == ("World", "Sports", "Business", "Sci/Tech")
    assert (sum(map(len, data.clients)), len(data.test)) == (5000, 1600)
    assert data.vocabulary == (2000 if tokenizer == "transfer" else 258)
    unknown = np.mean(data.test.inputs == 1)
    assert unknown == 0, "bytes as the alphabet leave nothing unknown"


COLUMNS = (
    "age,workclass,fnlwgt,education,education_num,marital,occupation,relationship,race,sex,"
    "gain,loss,hours,country,label"
)


@pytest.fixture
def adult(tmp_path: Path) -> Callable[[str], str]:
    """An Adult file, as the UCI gives it, as a CSV file with a header."""

    def write(name: str) -> str:
        with gzip.open(real(f"adult/{name}.gz"), "rt") as lines:
            rows = [line.strip().rstrip(".").replace(", ", ",") for line in lines if line.count(",") == 14]
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join([COLUMNS, *rows]) + "\n")
        return str(path)

    return write


def test_adult(adult: Callable[[str], str]) -> None:
    settings = Data(source=adult("adult.data"), test_source=adult("adult.test"), transfer=2000)
    data = load_federated(settings, 10, 0)
    assert data.classes == ("<=50K", ">50K")
    assert (sum(map(len, data.clients)), len(data.test)) == (30_561, 16_281)
    assert 80 < data.input_shape[0] < 110
    by_country = Data(
        source=settings.source,
        test_source=settings.test_source,
        transfer=2000,
        inputs=("age", "workclass", "hours"),
        partition=Partition(kind="column", column="race"),
    )
    races = load_federated(by_country, None, 0)
    assert races.client_names == ("Amer-Indian-Eskimo", "Asian-Pac-Islander", "Black", "Other", "White")
