"""What a model must take and give."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from securekd.errors import ModelError

# Images with fewer pixels a side have too few for the cells of oriented gradients.
SMALLEST_ORIENTED = 16


@dataclass(frozen=True)
class InputShape:
    """Shape of one input and number of classes.

    Attributes:
        modality: image, tabular or text.
        dimensions: (C, H, W), (F,) or (L,).
        classes: number of logits.
        vocabulary: number of token ids, padding (0) included; 0 unless the modality is text.
        public_mean: mean of the *transfer set's* inputs, entry by entry and flattened, which a model may subtract;
            empty where none is known. It is public, as it never saw a private row.
        public_deviation: root mean square deviation from it over all entries.
        pieces: the bytes that each token id stands for, a character (U+0000 to U+00FF) for each byte; empty where a
            tokenizer does not say, or inputs are no texts. Learnt on the transfer set, it is as public.
    """

    modality: Literal["image", "tabular", "text"]
    dimensions: tuple[int, ...]
    classes: int
    vocabulary: int = 0
    public_mean: tuple[float, ...] = ()
    public_deviation: float = 1.0
    pieces: tuple[str, ...] = ()

    def with_statistics(self, transfer: np.ndarray) -> "InputShape":
        """The same shape with mean and deviation of the public transfer inputs (m, ...); texts have none."""
        if self.modality == "text":
            return self
        mean = transfer.mean(axis=0, dtype=np.float64)
        deviation = float(np.sqrt(np.square(transfer - mean).mean()))
        return replace(self, public_mean=tuple(mean.reshape(-1).tolist()), public_deviation=max(deviation, 1e-6))

    @property
    def oriented(self) -> bool:
        """Whether inputs are images that are large enough for oriented gradients."""
        return self.modality == "image" and min(self.dimensions[1:]) >= SMALLEST_ORIENTED

    def image(self) -> tuple[int, int, int]:
        """The dimensions (C, H, W), or `ModelError` where inputs are no images."""
        if self.modality != "image":
            raise ModelError(
                f"this model sees images, and the data is {self.modality}; take logistic, mlp or transformers"
            )
        channels, height, width = self.dimensions
        return channels, height, width
