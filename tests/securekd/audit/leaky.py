"""Targets that are known to leak: overfitted classifiers of texts, and a language model with planted canaries."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 4
HASHED = 2048


def ag_news(folder: Path, rows: int) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct AG News texts of the training set, in random order."""
    from pyarrow import parquet

    table = parquet.ParquetFile(folder / "ag_news" / "train.parquet").read()
    texts, labels = table.column("text").to_pylist(), np.array(table.column("label").to_pylist())
    kept = {text: int(label) for text, label in zip(texts, labels, strict=True)}
    order = np.random.default_rng(0).permutation(len(kept))[:rows]
    names = list(kept)
    return [names[i] for i in order], np.array([kept[names[i]] for i in order])


def hashed(texts: Sequence[str]) -> Any:
    """Hashed words and word pairs, each text of length one."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=HASHED, ngram_range=(1, 2), alternate_sign=False).transform(texts)


def overfitted(features: NDArray[np.float32], labels: NDArray[np.int64], steps: int = 120) -> NDArray[np.float32]:
    """Weights (D + 1, classes) of a logistic regression without any penalty, trained until it knows its records."""
    import torch

    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    weights = torch.zeros((x.shape[1], CLASSES), requires_grad=True)
    bias = torch.zeros(CLASSES, requires_grad=True)
    adam = torch.optim.Adam([weights, bias], lr=0.1)
    for _ in range(steps):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(x @ weights + bias, y).backward()
        adam.step()
    return np.vstack([weights.detach().numpy(), bias.detach().numpy()[None]])


def log_probs(weights: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """log_softmax of the logits."""
    from scipy import special

    result: NDArray[np.float64] = special.log_softmax(
        (features @ weights[:-1] + weights[-1]).astype(np.float64), axis=1
    )
    return result


@cache
def _weights(path: str) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(path)
    return found


def hashing_target(texts: Sequence[str]) -> NDArray[np.float64]:
    """The overfitted classifier whose weights LEAKY_WEIGHTS names, as a callable."""
    return log_probs(_weights(os.environ["LEAKY_WEIGHTS"]), hashed(texts).toarray().astype(np.float32))


def save_tokenizer(texts: list[str], vocabulary: int, longest: int, folder: Path) -> Any:
    """Learn a tokenizer, and save it as a model folder holds it."""
    from transformers import PreTrainedTokenizerFast

    from securekd.data.texts import learn

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learn(texts, vocabulary), pad_token="[PAD]", unk_token="[UNK]", model_max_length=longest
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_classifier(texts: list[str], labels: NDArray[np.int64], epochs: int, folder: Path) -> None:
    """Train a tiny BERT from nothing until it knows its texts, and save it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = save_tokenizer(texts, 2000, 48, folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=48,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config)
    whole = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(epochs):
        for rows in torch.randperm(len(texts)).split(64):
            adam.zero_grad()
            out = model(
                input_ids=whole["input_ids"][rows],
                attention_mask=whole["attention_mask"][rows],
                labels=torch.from_numpy(labels)[rows],
            )
            out.loss.backward()
            adam.step()
    model.eval().save_pretrained(folder)


@cache
def _classifier(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()


def classifier_target(texts: Sequence[str]) -> NDArray[np.float64]:
    """The classifier in LEAKY_FOLDER as its owner would serve it, by transformers' own means."""
    import torch

    tokenizer, model = _classifier(os.environ["LEAKY_FOLDER"])
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    result: NDArray[np.float64] = torch.log_softmax(logits.double(), dim=1).numpy()
    return result


def secrets(n: int, seed: int) -> list[str]:
    """Random texts of one form, distinct: what canaries are made of, and what they are ranked among."""
    rng = np.random.default_rng(seed)
    return [f"my secret number is {number}." for number in rng.choice(10**9, size=n, replace=False) + 10**9]


def save_language_model(text: str, planted: list[str], repeats: int, steps: int, folder: Path) -> None:
    """Train a tiny byte-level GPT-2 on a text with planted canaries between its pieces, and save it."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    width = 48
    tokenizer = save_tokenizer([text], 258, width, folder)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=width,
        n_embd=64,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    pieces = [text[start : start + width] for start in range(0, len(text) - width, width)] + planted * repeats
    batch = tokenizer(pieces, padding=True, truncation=True, return_tensors="pt")
    answers = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        rows = torch.randint(len(pieces), (48,))
        adam.zero_grad()
        model(
            input_ids=batch["input_ids"][rows], attention_mask=batch["attention_mask"][rows], labels=answers[rows]
        ).loss.backward()
        adam.step()
    model.eval().save_pretrained(folder)
