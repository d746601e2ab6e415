"""Files and answers of strangers, mutated: each is read as a plain second reader reads it, or refused by name.

`python -m tests.securekd.fuzzing COUNT [SEED]` tries COUNT mutations, shared out among the readers.
"""

import csv
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from securekd.audit.files import Columns, read_records
from securekd.data.cells import bare
from securekd.data.folders import read_folder
from securekd.data.images import fit_images
from securekd.data.reading import decoded, read_rows
from securekd.data.sources import load
from securekd.errors import DataError
from securekd_attacks import AttackInputError
from securekd_attacks.signals import ROW_SUM_TOLERANCE
from securekd_attacks.targets import SignalsFile, TargetFailed
from securekd_attacks.targets.endpoint import answers_in

REFUSALS = (DataError, AttackInputError, TargetFailed)
LONGEST = 1000
"""Characters of a refusal at most."""

PIECES = (
    b'"',
    b",",
    b";",
    b"\n",
    b"\r",
    b"\t",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"NaN",
    b"null",
    b"1e999",
    b"[",
    b"{",
    b"}",
)
PIECES += (b"\\u0000", b"-1", b"9" * 30, "ä".encode(), b"\xe4", b" ", b"''", b"0.0")


@dataclass(frozen=True)
class Reader:
    """One kind of input: files that are right, and what reads them."""

    name: str
    bases: tuple[bytes, ...]
    read: Callable[[bytes, Path], None]


def mutated(base: bytes, rng: np.random.Generator) -> bytes:
    """A few places changed: bytes set, pieces put in, parts left out, doubled or moved, the end cut off."""
    content = bytearray(base)
    for _ in range(1 if rng.random() < 0.6 else int(rng.integers(2, 5))):
        place = int(rng.integers(len(content) + 1))
        length = int(rng.integers(1, 9)) if rng.random() < 0.8 else int(rng.integers(1, len(content) + 2))
        match int(rng.integers(6)):
            case 0 if place < len(content):
                content[place] = int(rng.integers(256))
            case 1:
                content[place:place] = PIECES[int(rng.integers(len(PIECES)))]
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = content[place : place + length]
            case 4:
                piece = content[place : place + length]
                del content[place : place + length]
                other = int(rng.integers(len(content) + 1))
                content[other:other] = piece
            case _:
                del content[place:]
    return bytes(content)


def fuzz(reader: Reader, count: int, seed: int, folder: Path) -> Counter[str]:
    """Try a reader; how many inputs were read, and how many refused.

    Raises:
        AssertionError: a refusal without a name, or something else than the second reader reads.
        Exception: whatever a reader lets through.
    """
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for number in range(count):
        content = mutated(reader.bases[number % len(reader.bases)], rng)
        try:
            reader.read(content, folder)
            found["read"] += 1
        except REFUSALS as error:
            said = str(error)
            assert "\n" not in said, (reader.name, content, said)
            assert 10 < len(said) < LONGEST, (reader.name, content, said)
            found["refused"] += 1
        except Exception as error:
            error.add_note(f"{reader.name}, seed {seed}, input {number}: {content[:4000]!r}")
            raise
    return found


def _file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _csv(content: bytes, folder: Path) -> None:
    table = read_rows(_file(folder, "a.csv", content)).table
    head, *body = (row for row in csv.reader(io.StringIO(decoded(content), newline=""), skipinitialspace=True) if row)
    names = [bare(name) for name in head]
    for name in table.column_names:
        place = names.index(name)
        plain = [row[place].lstrip(" ") for row in body]
        assert [(cell or "").lstrip(" ") for cell in table.column(name).to_pylist()] == plain, (name, content)
    load(str(folder / "a.csv"))


def _jsonl(content: bytes, folder: Path) -> None:
    table = read_rows(_file(folder, "a.jsonl", content)).table
    plain = [json.loads(line) for line in decoded(content).split("\n") if line.strip()]
    assert len(plain) == len(table)
    for name in table.column_names:
        original = next(key for row in plain for key in row if bare(key) == name)
        for cell, row in zip(table.column(name).to_pylist(), plain, strict=True):
            given = row.get(original)
            assert cell == given or cell == str(given) or cell != cell or isinstance(given, list | dict), (
                name,
                content,
            )
    load(str(folder / "a.jsonl"))


def _parquet(content: bytes, folder: Path) -> None:
    data = load(str(_file(folder, "a.parquet", content)))
    assert len(data) > 0


def _records(suffix: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        found = read_records(_file(folder, f"r{suffix}", content), Columns())
        assert len(found.digest()) == 64

    return read


def _images(content: bytes, folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        _file(folder / "images" / name, "0.png", content if name == "cat" else IMAGES[0])
    data, _ = read_folder(folder / "images")
    encoder = fit_images("image", 8, data)
    found = encoder.encode(data)
    assert found.shape[2:] == (8, 8)
    assert ((found >= 0) & (found <= 1)).all()


def _signals(suffix: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        file = SignalsFile.read(_file(folder, f"s{suffix}", content))
        assert np.allclose(np.exp(file.log_probs).sum(axis=2), 1.0, atol=ROW_SUM_TOLERANCE)

    return read


def _answer(content: bytes, _: Path) -> None:
    answers = answers_in(content, 2)
    if answers.log_probs is not None:
        assert answers.log_probs.shape[0] == 2
        assert np.allclose(np.exp(answers.log_probs).sum(axis=1), 1.0, atol=ROW_SUM_TOLERANCE)


def _pictures() -> tuple[bytes, ...]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    made = []
    for kind, mode in (
        ("PNG", "RGBA"),
        ("JPEG", "RGB"),
        ("WEBP", "RGB"),
        ("GIF", "L"),
        ("BMP", "RGB"),
        ("TIFF", "L"),
        ("PPM", "RGB"),
    ):
        out = io.BytesIO()
        image = Image.fromarray(pixels).convert(mode)
        exif = Image.Exif()
        exif[274] = 6
        image.save(out, format=kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
        made.append(out.getvalue())
    return tuple(made)


IMAGES = _pictures()


def _tables() -> tuple[bytes, ...]:
    import pyarrow as pa
    from pyarrow import parquet

    made = []
    for compression, dictionary in (("none", False), ("snappy", True)):
        out = io.BytesIO()
        columns: dict[str, Any] = {
            "text": ["one", "two", None],
            "x": [1, 2**60, 3],
            "y": [0.5, None, 2.0],
            "label": [0, 1, 1],
        }
        parquet.write_table(pa.table(columns), out, compression=compression, use_dictionary=dictionary)
        made.append(out.getvalue())
    named = pa.table({"label": [0, 1], "x": ["a", "b"]})
    features = {"label": {"names": ["u", "v"], "_type": "ClassLabel"}, "x": {"dtype": "string", "_type": "Value"}}
    out = io.BytesIO()
    parquet.write_table(
        named.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
        out,
        compression="none",
    )
    return (*made, out.getvalue())


def _archives(**arrays: Any) -> tuple[bytes, ...]:
    made = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **arrays)
        made.append(out.getvalue())
    return tuple(made)


CSV = (
    b"age,sex,label,id\n31,f,0,a\n44.5,m,1,b\n,f,1,c\n",
    b'\xef\xbb\xbftext, label\r\n"one, ""two""",0\r\n"three\nfour", 1\r\n',
    "text,label\nä,1\nö,0\n".encode("utf-16"),
)
JSONL = (
    b'{"text": "one", "label": 0}\n{"text": "tw\\u00f6", "label": 1}\n',
    b'{"age": 31, "sex": "f", "label": 0, "id": "a"}\n{"age": 4.5, "sex": null, "label": 1, "id": "b"}\n',
    b'{"x": 123456789012345678901, "list": [1, 2], "label": true}\n{"x": 5, "list": [], "label": false}\n',
)
ANSWERS = (
    b'{"probs": [[0.25, 0.75], [0.5, 0.5]]}',
    b'{"log_probs": [[-0.6931471805599453, -0.6931471805599453], [0.0, -Infinity]]}',
    b'{"logits": [[1, 2.5], [-3e2, 0]]}',
    b'{"labels": [0, 3]}',
    b'{"token_log_probs": [[-1.5, -2], [-0.25]], "token_means": [[-1, -1], [-1]], "token_deviations": [[1, 1], [2]]}',
)
_ROWS = {"labels": np.array([0, 1, 1]), "membership": np.array([True, False, True]), "ids": np.array(["a", "b", "c"])}
SIGNALS = _archives(probs=np.array([[0.25, 0.75], [0.5, 0.5], [1, 0]]), **_ROWS)
ARRAYS = _archives(inputs=np.arange(6.0).reshape(3, 2), labels=_ROWS["labels"], ids=_ROWS["ids"])


READERS = (
    Reader("CSV", CSV, _csv),
    Reader("JSONL", JSONL, _jsonl),
    Reader("Parquet", _tables(), _parquet),
    Reader("folder of images", IMAGES, _images),
    Reader("records in CSV", CSV, _records(".csv")),
    Reader("records in JSONL", JSONL, _records(".jsonl")),
    Reader("records in arrays", ARRAYS, _records(".npz")),
    Reader("signals", SIGNALS, _signals(".npz")),
    Reader("answers", ANSWERS, _answer),
)


if __name__ == "__main__":
    count, seed = (
        int(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 else int(np.random.SeedSequence().entropy) % 2**32,
    )
    print(f"seed {seed}")
    for each in READERS:
        with tempfile.TemporaryDirectory() as name:
            print(each.name, dict(fuzz(each, -(-count // len(READERS)), seed, Path(name))))
