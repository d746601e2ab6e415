"""What a model must take and give."""

from dataclasses import dataclass
from typing import Literal

from securekd.errors import ModelError


@dataclass(frozen=True)
class InputShape:
    """Shape of one input and number of classes.

    Attributes:
        modality: image, tabular or text.
        dimensions: (C, H, W), (F,) or (L,).
        classes: number of logits.
        vocabulary: number of token ids, padding (0) included; 0 unless the modality is text.
    """

    modality: Literal["image", "tabular", "text"]
    dimensions: tuple[int, ...]
    classes: int
    vocabulary: int = 0

    def image(self) -> tuple[int, int, int]:
        """The dimensions (C, H, W), or `ModelError` where inputs are no images."""
        if self.modality != "image":
            raise ModelError(f"this model sees images, and the data is {self.modality}; take logistic, mlp or transformers")
        channels, height, width = self.dimensions
        return channels, height, width
