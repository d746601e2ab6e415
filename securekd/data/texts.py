"""Texts to token ids: pieces learnt on the public transfer set, plain bytes, or a local tokenizer.

In every case 0 pads, and 0 stands nowhere else. A missing text counts as empty, and an empty text is one unknown token,
so that no row consists of padding alone (attention over nothing but padding is not a number).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from securekd.data.columns import texts
from securekd.data.content import text_keys
from securekd.data.examples import Array
from securekd.data.reading import first_line
from securekd.data.sources import expand
from securekd.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

PAD, UNKNOWN = 0, 1
BYTE_OFFSET = 2
Tokenize = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class TextEncoder:
    """Turns texts into int64 (N, L) token ids: cut after L tokens, padded with 0 at the end.

    Attributes:
        column: the column with the text.
        length: L.
        vocabulary: number of ids, padding included.
        unknown: the id of the one token of an empty text, and of a padding token that a text spells out.
        tokenize: from texts to their ids, without padding.
        pieces: the bytes of each id, a character each; empty where a tokenizer does not say.
    """

    column: str
    length: int
    vocabulary: int
    unknown: int
    tokenize: Tokenize = field(repr=False)
    pieces: tuple[str, ...] = field(default=(), repr=False)
    modality: Literal["text"] = "text"

    @property
    def shape(self) -> tuple[int, ...]:
        """(L,)."""
        return (self.length,)

    def encode(self, rows: "Dataset") -> Array:
        """Token ids of the texts of some rows.

        Raises:
            DataError: if the column is absent.
        """
        ids = np.full((len(rows), self.length), PAD, dtype=np.int64)
        for i, tokens in enumerate(self.tokenize(texts(rows, self.column))):
            kept = [token or self.unknown for token in tokens[: self.length]] or [self.unknown]
            ids[i, : len(kept)] = kept
        return ids

    def keys(self, rows: "Dataset", inputs: Array) -> list[bytes]:
        """Keys of the whole texts."""
        return text_keys(texts(rows, self.column))


def fit_text(column: str, tokenizer: str, vocabulary: int, length: int, transfer: "Dataset") -> TextEncoder:
    """Make the tokenizer that `data.tokenizer` names; `transfer` learns from the public transfer set only.

    Raises:
        DataError: if a tokenizer's folder is absent, cannot be read, or pads with another id than 0.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and forked workers do not go together
    if tokenizer == "bytes":
        pieces = ("", "", *map(chr, range(256)))
        return TextEncoder(column, length, 256 + BYTE_OFFSET, UNKNOWN, _bytes(length), pieces)
    if tokenizer == "transfer":
        learnt = learn(texts(transfer, column), vocabulary)
        return TextEncoder(column, length, learnt.get_vocab_size(), UNKNOWN, _fast(learnt), _pieces(learnt))
    return _local(column, tokenizer, length)


def learn(corpus: list[str], vocabulary: int) -> Any:
    """Learn a byte-level BPE vocabulary (Sennrich et al. 2016) of lower-cased texts: [PAD], [UNK], bytes, merges.

    Bytes as the alphabet leave no text without ids, in any script. The `tokenizers` library's WordPiece trainer would
    number its pieces differently in each process; this one gives the same ids everywhere.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learnt = Tokenizer(models.BPE())
    learnt.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=["[PAD]", "[UNK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator(corpus, trainer)
    learnt.encode_special_tokens = True  # a text that spells "[PAD]" is no padding
    return learnt


def _pieces(tokenizer: Any) -> tuple[str, ...]:
    """The bytes of each id of a byte-level tokenizer, a character for each."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # which stand for themselves (Radford et al. 2019)
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): chr(byte) for byte in plain} | {chr(256 + i): chr(byte) for i, byte in enumerate(others)}
    named = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return ("", "", *("".join(byte_of[letter] for letter in name) for name in named[2:]))


def _fast(tokenizer: Any) -> Tokenize:
    return lambda given: [encoding.ids for encoding in tokenizer.encode_batch(given, add_special_tokens=False)]


def _bytes(length: int) -> Tokenize:
    return lambda given: [[byte + BYTE_OFFSET for byte in text.encode(errors="replace")[:length]] for text in given]


def _local(column: str, tokenizer: str, length: int) -> TextEncoder:
    folder = expand(tokenizer)
    if not folder.is_dir():
        raise DataError(
            f"data.tokenizer is {tokenizer!r}, and there is no such folder: give transfer, bytes or a local folder"
        )
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a broken or foreign folder makes transformers raise
        raise DataError(f"cannot load the tokenizer in {tokenizer!r}: {first_line(error)}") from error
    if loaded.pad_token_id != PAD:
        raise DataError(
            f"the tokenizer in {tokenizer!r} pads with id {loaded.pad_token_id}, and padding is 0 here: take one whose "
            "pad token has id 0 (those of BERT, DistilBERT, ELECTRA, T5)"
        )
    unknown = int(loaded.unk_token_id or UNKNOWN)

    def tokenize(given: list[str]) -> list[list[int]]:
        cut: list[list[int]] = loaded(given, truncation=True, max_length=length, split_special_tokens=True)["input_ids"]
        return cut

    return TextEncoder(column, length, len(loaded), unknown, tokenize)
