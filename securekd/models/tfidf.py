"""Texts as TF-IDF of words and of characters: which n-grams there are, and their weights, the transfer set says."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.public import PublicLayer, checked, headed
from securekd.models.shape import InputShape

# Character n-grams stay within words, and have so many characters.
CHARACTERS = (3, 5)
# What stands in more of the texts than this says nothing of their classes, in any language.
MOST_COMMON = 0.1
FEWEST_TEXTS = 2
# Bytes of a text that token ids could stand for, at most.
LONGEST_TEXT = 2**24

GRAMS = 20_000

Analyze = Callable[[str], list[str]]


class TfIdf(PublicLayer):
    """TF-IDF (Salton and Buckley 1988: logarithmic counts, rows of length 1) of token ids read back as text.

    Args:
        grams: n-grams that are kept, those in most texts first; where there are fewer, the others are zeros.
        shape: of the texts.
    """

    takes = ("text", "ends", "vocabulary", "weights")
    text: Tensor
    ends: Tensor
    vocabulary: Tensor
    weights: Tensor

    def __init__(self, grams: int, shape: InputShape) -> None:
        super().__init__(checked(grams, "grams"))
        self._shape = shape

    def fit(self, inputs: Tensor) -> dict[str, Tensor]:
        """The n-grams of token ids (m, L), and their weights log((1 + m)/(1 + texts with it)) + 1.

        Raises:
            ModelError: No n-gram stands in two of the texts and not in most, or a tokenizer's ids cannot be read back.
        """
        if not self._shape.pieces:
            raise ModelError(
                "tfidf reads token ids back as text, and this tokenizer does not say what they stand for; set "
                "data.tokenizer to 'transfer' or 'bytes'"
            )
        encoded = [piece.encode("latin-1") for piece in self._shape.pieces]
        text, ends = b"".join(encoded), np.cumsum([len(piece) for piece in encoded])
        texts, analyze = read_back(inputs.numpy(), text, ends), analyzer()
        counted = CountVectorizer(analyzer=analyze)
        try:
            found = counted.fit_transform(texts)
        except ValueError:  # scikit-learn's word for an empty vocabulary
            found = None
        seen = np.zeros(0, np.int64) if found is None else np.bincount(found.indices, minlength=found.shape[1])
        kept = np.flatnonzero((seen >= FEWEST_TEXTS) & (seen <= max(MOST_COMMON * len(texts), FEWEST_TEXTS)))
        if not len(kept):
            raise ModelError(
                f"no word or part of a word stands in {FEWEST_TEXTS} or more of the {len(texts)} texts of the transfer "
                f"set and in at most {MOST_COMMON:.0%} of them; raise data.transfer, or take another model"
            )
        kept = np.sort(kept[np.argsort(-seen[kept], kind="stable")[: self.size]])
        names = "\n".join(counted.get_feature_names_out()[kept]).encode()
        weights = np.zeros(self.size)
        weights[: len(kept)] = np.log((1 + len(texts)) / (1 + seen[kept])) + 1
        return {
            "text": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            "ends": torch.from_numpy(ends),
            "vocabulary": torch.frombuffer(bytearray(names), dtype=torch.uint8),
            "weights": torch.from_numpy(weights).float(),
        }

    def refuse_unfit(self) -> None:
        """Refuse bytes that are not those of the token ids, and n-grams that do not have a weight each."""
        ends, names = self.ends.cpu().numpy(), self._names()
        kinds = (self.text.dtype, self.ends.dtype, self.vocabulary.dtype, self.weights.dtype)
        known = kinds == (torch.uint8, torch.int64, torch.uint8, torch.float32)
        if not known or ends.shape != (self._shape.vocabulary,) or self.weights.shape != (self.size,):
            raise ModelError("the vocabulary of this tfidf model is no such thing; fit it anew")
        pieces = np.diff(ends, prepend=0)
        cut = ends[-1] != self.text.numel() or (pieces < 0).any()
        if cut or len(set(names)) < len(names) or len(names) != int((self.weights > 0).sum()):
            raise ModelError("the vocabulary of this tfidf model is damaged; fit it anew")
        if int(pieces.max()) * self._shape.dimensions[0] > LONGEST_TEXT:
            raise ModelError(f"texts of this tfidf model could have more than {LONGEST_TEXT} bytes; fit it anew")

    def _names(self) -> list[str]:
        return self.vocabulary.cpu().numpy().tobytes().decode().split("\n")

    def features(self, inputs: Tensor) -> Tensor:
        """Token ids (N, L) to (N, grams), of length 1; 0 for a text without any of them."""
        counted = CountVectorizer(analyzer=analyzer(), vocabulary={name: i for i, name in enumerate(self._names())})
        texts = read_back(inputs.cpu().numpy(), self.text.cpu().numpy().tobytes(), self.ends.cpu().numpy())
        found = counted.transform(texts).astype(np.float32)
        found.data = 1.0 + np.log(found.data)
        dense = torch.zeros(len(texts), self.size)
        dense[:, : found.shape[1]] = torch.from_numpy(found.toarray())
        weighted = dense * self.weights.cpu()
        unit: Tensor = weighted / weighted.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return unit.to(inputs.device)


def analyzer() -> Analyze:
    """The words of a text, and the characters in them."""
    words = CountVectorizer().build_analyzer()
    parts = CountVectorizer(analyzer="char_wb", ngram_range=CHARACTERS).build_analyzer()
    return lambda text: [*words(text), *(f" {part}" for part in parts(text))]  # no word begins with a space


def read_back(ids: np.ndarray, text: bytes, ends: np.ndarray) -> list[str]:
    """The texts of token ids (N, L); 0 is padding, and bytes that are cut off are left out."""
    starts = np.concatenate([[0], ends[:-1]])
    return [
        b"".join(text[a:b] for a, b in zip(starts[row], ends[row], strict=True)).decode(errors="ignore") for row in ids
    ]


def tfidf(
    shape: InputShape,
    *,
    grams: int = GRAMS,
    hidden: int | None = None,
    components: int | None = None,
    whitening: float = 0.5,
) -> nn.Module:
    """A head on TF-IDF of the words of texts, and of parts of words.

    Args:
        shape: of the texts.
        grams: words and parts that are kept.
        hidden: tanh units between; None: the head is linear.
        components: principal components that it sees (latent semantic analysis, Deerwester et al. 1990); None: all.
        whitening: see `Principal`.

    Raises:
        ModelError: where inputs are no texts.
    """
    if shape.modality != "text":
        raise ModelError(f"tfidf reads texts, and the data is {shape.modality}; take logistic, mlp or hog")
    return headed([TfIdf(grams, shape)], grams, shape, hidden, components, whitening)
