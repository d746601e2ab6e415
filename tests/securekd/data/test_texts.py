"""Texts become token ids in which 0 pads and nothing else is 0."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from securekd.data.texts import fit_text
from securekd.errors import DataError

from .conftest import SENTENCES
from .test_sources import run_python


def dataset(texts: list[Any]) -> Any:
    from datasets import Dataset, Features, Value

    return Dataset.from_dict({"text": texts}, features=Features({"text": Value("string")}))


AWKWARD = [*SENTENCES, "", None, "[PAD] [PAD]", "日本語 \U0001f600 é", "word " * 500]


@pytest.mark.parametrize("tokenizer", ["transfer", "bytes", "folder"])
def test_padding_and_empty_texts(tokenizer: str, bert_folder: Callable[..., str]) -> None:
    name = bert_folder() if tokenizer == "folder" else tokenizer
    encoder = fit_text("text", name, 300, 16, dataset([*SENTENCES] * 3))
    ids = encoder.encode(dataset(AWKWARD))
    assert ids.shape == (len(AWKWARD), 16) == (len(AWKWARD), *encoder.shape)
    assert ids.dtype == np.int64
    assert ids.max() < encoder.vocabulary
    lengths = (ids != 0).sum(axis=1)
    assert lengths.min() >= 1
    assert lengths.max() == 16
    for row, length in zip(ids, lengths, strict=True):
        assert (row[:length] != 0).all(), "0 stands inside a text"
    assert len(np.unique(ids[:4], axis=0)) == 4


def test_bytes_are_utf8_moved_by_two() -> None:
    encoder = fit_text("text", "bytes", 300, 6, dataset(["x"]))
    assert encoder.vocabulary == 258
    assert encoder.encode(dataset(["aé", ""])).tolist() == [[99, 197, 171, 0, 0, 0], [1, 0, 0, 0, 0, 0]]


def test_pieces_come_from_the_transfer_set_only() -> None:
    few = fit_text("text", "transfer", 300, 16, dataset(["abab abab"] * 4))
    many = fit_text("text", "transfer", 300, 16, dataset(["zyzy zyzy"] * 4))
    text = dataset(["abab"])
    assert (few.encode(text) != 0).sum() < (many.encode(text) != 0).sum()
    assert few.vocabulary <= 300
    rows = dataset(["abab", "something private"])
    assert np.array_equal(few.encode(rows)[0], few.encode(text)[0])


LEARN = """
    from securekd.data.texts import learn
    words = [f"{a}{b}{c} " for a in "abcdefgh" for b in "éüøñß" for c in "xyz日"]
    print(sorted(learn(words * 2, 400).get_vocab().items()))
"""


def test_learning_is_the_same_in_every_process() -> None:
    digests = {hashlib.sha256(run_python(LEARN, PYTHONHASHSEED=str(i)).stdout.encode()).hexdigest() for i in range(3)}
    assert len(digests) == 1


def test_local_tokenizer_keeps_its_own_ids_and_ends(bert_folder: Callable[..., str]) -> None:
    encoder = fit_text("text", bert_folder(), 300, 8, dataset(["x"]))
    ids = encoder.encode(dataset(["the match unheard", "the match ended in a draw the match"]))
    assert ids[0, 0] == 2
    assert ids[0, 3:5].tolist() == [1, 3]
    assert ids[1, -1] == 3, "a text that is cut keeps its end token"


def test_bad_tokenizers(bert_folder: Callable[..., str], tmp_path: Any) -> None:
    with pytest.raises(DataError, match=r"no such folder.*transfer, bytes or a local folder"):
        fit_text("text", "bert-base-uncased", 300, 8, dataset(["x"]))
    with pytest.raises(DataError, match="cannot load the tokenizer"):
        fit_text("text", str(tmp_path), 300, 8, dataset(["x"]))
    with pytest.raises(DataError, match="pads with id 1"):
        fit_text("text", bert_folder(specials=("[UNK]", "[PAD]")), 300, 8, dataset(["x"]))
    with pytest.raises(DataError, match="NO_SUCH_VARIABLE"):
        fit_text("text", "${NO_SUCH_VARIABLE}/tokenizer", 300, 8, dataset(["x"]))
