"""Every kind of source is loaded for real, and every bad one is a one-line error."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from securekd.data import load
from securekd.data.sources import expand, identity
from securekd.errors import DataError, InputError

ROOT = Path(__file__).parents[3]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process with the project importable."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SECUREKD_"))} | environment
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )


def write_parquet(path: Path, columns: dict[str, list[object]], features: object = None) -> str:
    from datasets import Dataset

    Dataset.from_dict(columns, features=features).to_parquet(str(path))
    return str(path)


def test_digits_are_the_scans_with_their_class_names() -> None:
    from sklearn.datasets import load_digits

    data = load("digits")
    assert len(data) == 1797
    assert data.features["label"].names == [str(i) for i in range(10)]
    expected = load_digits()
    assert data["label"][:] == expected.target.tolist()
    assert np.abs(np.asarray(data[5]["image"]) / 255 - expected.images[5] / 16).max() <= 0.5 / 255 + 1e-9


def test_csv_is_read_as_strings_with_empty_cells_missing(write_csv: Callable[..., str]) -> None:
    data = load(write_csv([("x", "text", "label"), (1, '"a, b\nc"', "yes"), (None, "?", "no"), ("abc", "NA", "no")]))
    assert [str(f.dtype) for f in data.features.values()] == ["string"] * 3
    assert data["x"][:] == ["1", None, "abc"]
    assert data["text"][:] == ["a, b\nc", "?", "NA"]


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one", "label": 0}\n{"text": "two", "label": 1}\n')
    data = load(str(path))
    assert data["text"][:] == ["one", "two"]
    assert data["label"][:] == [0, 1]


def test_parquet_keeps_image_and_class_features(tmp_path: Path) -> None:
    from datasets import ClassLabel, Features, Image

    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    data = load(write_parquet(tmp_path / "x.parquet", {"image": [pixels, pixels], "label": [0, 1]}, features))
    assert data.features == features
    assert np.array_equal(np.asarray(data[0]["image"]), pixels)
    assert data.cache_files == []


def test_parquet_of_pandas_loses_its_index_and_decodes_categories(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"x": [1.0, 2.0], "c": pd.Categorical(["u", "v"])}, index=[7, 8])
    frame.to_parquet(tmp_path / "p.parquet")
    data = load(str(tmp_path / "p.parquet"))
    assert data.column_names == ["x", "c"]
    assert data["c"][:] == ["u", "v"]


def test_folder_of_images_by_class(image_folder: Callable[..., str]) -> None:
    data = load(image_folder(6))
    assert data.features["label"].names == ["cat", "dog"]
    assert data["label"][:] == [0, 0, 0, 1, 1, 1]
    assert data[0]["image"].size == (6, 6)


def test_module_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_source.py").write_text(
        "from datasets import Dataset, DatasetDict\n"
        "def rows(): return Dataset.from_dict({'x': [1, 2], 'label': [0, 1]})\n"
        "def both(): return DatasetDict(train=rows())\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load("my_source:rows")["x"][:] == [1, 2]
    with pytest.raises(DataError, match=r"DatasetDict.*single split"):
        load("my_source:both")
    with pytest.raises(DataError, match=r"int.*callable"):
        load("my_source:number")
    with pytest.raises(InputError, match="no_such_module"):
        load("no_such_module:rows")


def test_environment_variables_in_paths(
    numbers_csv: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers_csv(5)
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    assert len(load("${MY_DATA}/table.csv")) == 5
    assert identity("${MY_DATA}/table.csv") == identity(f"{tmp_path}/../{tmp_path.name}/table.csv")
    with pytest.raises(DataError, match="NO_SUCH_VARIABLE"):
        load("${NO_SUCH_VARIABLE}/table.csv")
    with pytest.raises(DataError, match=r"\$ without a name"):
        expand("/a/$/b")


def test_spellings_of_one_hub_source() -> None:
    assert identity("hub:ylecun/mnist") == identity("hub:ylecun/mnist:train") != identity("hub:ylecun/mnist:test")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("b.csv", b"x,label\n", "no rows"),
        ("c.csv", b"x,label\n1,2,3\n", "cannot read"),
        ("d.csv", b"x,label\n\xff\xfe,1\n", "cannot read"),
        ("e.csv", b"x,x\n1,2\n", "more than one column 'x'"),
        ("f.jsonl", b'{"x": 1}\n{"x": "a"}\n', "cannot read"),
        ("g.jsonl", b"not json\n", "cannot read"),
        ("h.parquet", b"PAR1 but not really", "cannot read"),
        ("i.xlsx", b"whatever", "cannot tell what"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        load(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_bad_paths_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file or folder.*nothing\.csv"):
        load(str(tmp_path / "nothing.csv"))
    with pytest.raises(DataError, match="no file or folder 'imdb'"):
        load("imdb")  # a Hub name without hub: is never looked up there
    with pytest.raises(DataError, match="no images"):
        load(str(tmp_path))
    for name in ("hub:", "hub:a/b/c", "hub:a b"):
        with pytest.raises(DataError, match="no Hub data set"):
            load(name)


def test_local_folder_does_not_stand_in_for_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="hides the Hub"):
        load("hub:mnist")


HUB = """
    import time, datasets, huggingface_hub
    from securekd.data import load
    from securekd.errors import DataError
    start = time.monotonic()
    try:
        load("hub:ylecun/mnist")
    except DataError as error:
        print(f"{time.monotonic() - start:.2f}|{error}")
"""


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "out of reach"),
        ({"HF_HUB_OFFLINE": "1"}, "cannot load 'hub:ylecun/mnist'"),
    ],
)
def test_hub_without_a_network_fails_soon(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    done = run_python(HUB, HF_HOME=str(tmp_path), **environment)
    assert done.returncode == 0, done.stderr
    seconds, _, message = done.stdout.strip().partition("|")
    assert said in message
    assert float(seconds) < 6


LOCAL = """
    import sys
    import securekd.data
    heavy = {"torch", "datasets", "transformers", "pandas", "sklearn", "matplotlib", "scipy", "PIL"} & set(sys.modules)
    assert not heavy, heavy

    import socket
    def refuse(*_, **__):
        raise AssertionError("the network was asked")
    socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse

    from securekd.data import load_federated
    from securekd.settings.data import Data
    table, images, texts, tokenizer = sys.argv[1:]
    load_federated(Data(), 5, 0)
    load_federated(Data(source=table, transfer=20, test=10), 2, 0)
    load_federated(Data(source=images, transfer=6, test=4), 2, 0)
    load_federated(Data(source=texts, tokenizer=tokenizer, transfer=20, test=10), 2, 0)
    print("done")
"""


def test_local_sources_stay_local(
    tmp_path: Path,
    numbers_csv: Callable[..., str],
    image_folder: Callable[..., str],
    texts_csv: Callable[..., str],
    bert_folder: Callable[..., str],
) -> None:
    """The package imports nothing heavy, no local source asks the network, and no cache keeps a copy."""
    cache = tmp_path / "cache"
    arguments = ["", numbers_csv(60), image_folder(20), texts_csv(60), bert_folder()]
    code = f"import sys; sys.argv = {arguments!r}\n" + textwrap.dedent(LOCAL)
    done = run_python(code, HF_HOME=str(cache), XDG_CACHE_HOME=str(cache))
    assert done.stdout.strip() == "done", done.stderr
    assert not [path for path in cache.rglob("*") if path.suffix in (".arrow", ".parquet", ".csv")]
