"""Sources written for real: images, tables and texts in a folder of the test's own."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SENTENCES = ("the match ended in a draw", "shares fell on monday", "a new planet was found", "talks began in geneva")


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., str]:
    """Write rows (the first names the columns) to a CSV file and give its path."""

    def write(rows: list[tuple[object, ...]], name: str = "table.csv") -> str:
        path = tmp_path / name
        path.write_text("\n".join(",".join("" if v is None else str(v) for v in row) for row in rows) + "\n")
        return str(path)

    return write


@pytest.fixture
def numbers_csv(write_csv: Callable[..., str]) -> Callable[..., str]:
    """A table of distinct rows: x, colour, site and a label with two classes."""

    def write(rows: int = 60, name: str = "table.csv", start: int = 0) -> str:
        body = [
            (i, ("red", "blue", "?")[i % 3], ("north", "south")[i % 2], ("yes", "no")[i // 2 % 2])
            for i in range(start, start + rows)
        ]
        return write_csv([("x", "colour", "site", "label"), *body], name)

    return write


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., str]:
    """A folder of PNG images by class, all different; `mode` and sizes as asked."""

    def write(
        count: int = 20,
        mode: str = "L",
        sizes: tuple[tuple[int, int], ...] = ((6, 6),),
        name: str = "images",
        seed: int = 0,
    ) -> str:
        rng = np.random.default_rng(seed)
        for i in range(count):
            folder = tmp_path / name / ("cat", "dog")[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            width, height = sizes[i % len(sizes)]
            shape = (height, width) if mode == "L" else (height, width, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i:03}.png")
        return str(tmp_path / name)

    return write


@pytest.fixture
def texts_csv(write_csv: Callable[..., str]) -> Callable[..., str]:
    """Distinct sentences of two classes."""

    def write(rows: int = 60, name: str = "texts.csv", start: int = 0) -> str:
        body = [(f"{SENTENCES[i % 4]} {i}", ("sport", "money")[i % 2]) for i in range(start, start + rows)]
        return write_csv([("text", "label"), *body], name)

    return write


@pytest.fixture
def bert_folder(tmp_path: Path) -> Callable[..., str]:
    """A tokenizer's folder as transformers writes it; its words are those of the sentences."""

    def write(pad: str = "[PAD]", specials: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")) -> str:
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        words = [*specials, *sorted({word for sentence in SENTENCES for word in sentence.split()})]
        vocabulary = {word: i for i, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        if "[CLS]" in specials:
            ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
            tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        folder = tmp_path / "tokenizer"
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, unk_token="[UNK]").save_pretrained(folder)
        return str(folder)

    return write


def png(pixels: np.ndarray) -> bytes:
    """An image as PNG bytes."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()
