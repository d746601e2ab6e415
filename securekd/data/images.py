"""Images to arrays: grey or colour and the size as the public transfer set has them."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from securekd.data.content import array_keys
from securekd.data.examples import Array
from securekd.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded, in the order in which it is tried; Pillow's rarer parsers stay shut."""

GREY_MODES = frozenset({"1", "L", "LA"})
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})


@dataclass(frozen=True)
class ImageEncoder:
    """Decodes images to float32 (N, C, H, W) in [0, 1].

    Attributes:
        column: the column with the images.
        mode: L (grey, C = 1) where every image of the transfer set is grey, otherwise RGB (C = 3); other rows are
            converted, transparency is dropped.
        width: in pixels.
        height: in pixels.
        resize: scale each image to that size (bilinear) instead of refusing other sizes.
    """

    column: str
    mode: Literal["L", "RGB"]
    width: int
    height: int
    resize: bool
    modality: Literal["image"] = "image"
    vocabulary: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return (1 if self.mode == "L" else 3, self.height, self.width)

    def encode(self, rows: "Dataset") -> Array:
        """Decode the images of some rows.

        Raises:
            DataError: if an image is missing, broken or deeper than 8 bits, or has another size and none is set.
        """
        pixels = np.empty((len(rows), *self.shape), dtype=np.uint8)
        for i, stored in enumerate(_stored(rows, self.column)):
            image = _open(stored)
            if image.mode != self.mode:
                image = image.convert(self.mode)
            if image.size != (self.width, self.height):
                image = self._resized(image)
            pixels[i] = np.asarray(image).reshape(self.height, self.width, -1).transpose(2, 0, 1)
        return pixels.astype(np.float32) / np.float32(255)

    def keys(self, rows: "Dataset", inputs: Array) -> list[bytes]:
        """Keys of the decoded pixels."""
        return array_keys(inputs)

    def _resized(self, image: "Image") -> "Image":
        from PIL.Image import Resampling

        if not self.resize:
            raise sizes_differ(image.size, (self.width, self.height))
        return image.resize((self.width, self.height), Resampling.BILINEAR)


def fit_images(column: str, image_size: int | None, transfer: "Dataset") -> ImageEncoder:
    """Settle mode and size on the public transfer set.

    Raises:
        DataError: if its images differ in size and `image_size` is unset.
    """
    images = [_open(stored) for stored in _stored(transfer, column)]
    mode: Literal["L", "RGB"] = "L" if all(image.mode in GREY_MODES for image in images) else "RGB"
    if image_size is not None:
        return ImageEncoder(column, mode, image_size, image_size, resize=True)
    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        raise sizes_differ(sizes[0], sizes[-1])
    return ImageEncoder(column, mode, *sizes[0], resize=False)


def sizes_differ(one: tuple[int, int], other: tuple[int, int]) -> DataError:
    """The error for images of two sizes (width, height)."""
    sizes = " and ".join(f"{width}x{height}" for width, height in (one, other))
    return DataError(f"images of {sizes} pixels cannot go into one model: set data.image_size to scale them")


def _stored(rows: "Dataset", column: str) -> Any:
    """The images as files, a list of {bytes, path}: quicker to decode than through the column's own feature."""
    from datasets import Image

    return rows.cast_column(column, Image(decode=False)).with_format(None)[column][:]


def _open(stored: dict[str, Any] | None) -> "Image":
    from PIL import Image, UnidentifiedImageError

    if stored is None or (stored["bytes"] is None and not stored["path"]):
        raise DataError("a row has no image: remove it")
    name = stored["path"] or "an image"
    try:
        image = Image.open(stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"]), formats=FORMATS)
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot decode {name}: not a whole {', '.join(FORMATS)} image; remove or replace it"
        ) from error
    if image.mode in DEEP_MODES:
        raise DataError(f"{name} has more than 8 bits a channel (mode {image.mode}): convert it to 8 bits")
    return image
