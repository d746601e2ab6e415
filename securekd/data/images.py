"""Images to arrays, as a viewer shows them: upright, over white, the first frame.

Grey or colour and the size are settled by the public transfer set. One decoded image is in memory at a time.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from securekd.data.content import array_keys
from securekd.data.examples import Array
from securekd.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded, in the order in which it is tried; Pillow's rarer parsers stay shut."""

MAX_PIXELS = 2**26
"""Pixels of the largest image that is decoded: a few KiB can declare billions, at up to 4 bytes each in memory."""

GREY_MODES = frozenset({"1", "L", "LA"})
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""From EXIF's orientation (CIPA DC-008, 4.6.5, tag 274) to what turns the image upright; 1 is upright."""

_BATCH = 64
"""Stored (not decoded) images that are read at once."""


@dataclass(frozen=True)
class ImageEncoder:
    """Decodes images to float32 (N, C, H, W) in [0, 1].

    Attributes:
        column: the column with the images.
        mode: L (grey, C = 1) where every image of the transfer set is grey, otherwise RGB (C = 3); other rows are
            converted.
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
    pieces: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return (1 if self.mode == "L" else 3, self.height, self.width)

    def encode(self, rows: "Dataset") -> Array:
        """Decode the images of some rows.

        Raises:
            DataError: if an image is missing, broken, too large or deeper than 8 bits, if nothing of it is left over
                white, or if it has another size and none is set.
        """
        inputs = np.empty((len(rows), *self.shape), dtype=np.float32)
        with warnings.catch_warnings(action="ignore"):  # Pillow's: what is wrong with an image is raised
            for i, stored in enumerate(_stored(rows, self.column)):
                inputs[i] = self._pixels(stored)
        inputs /= np.float32(255)
        return inputs

    def keys(self, rows: "Dataset", inputs: Array) -> list[bytes]:
        """Keys of the decoded pixels."""
        return array_keys(inputs)

    def _pixels(self, stored: "Stored") -> Array:
        """Uint8 (C, H, W)."""
        with _opened(stored) as image:
            seen = _seen(image, _name(stored))
            if seen.mode != self.mode:
                seen = seen.convert(self.mode)
            if seen.size != (self.width, self.height):
                seen = self._resized(seen)
            return np.asarray(seen).reshape(self.height, self.width, -1).transpose(2, 0, 1)

    def _resized(self, image: "Image") -> "Image":
        from PIL.Image import Resampling

        if not self.resize:
            raise sizes_differ(image.size, (self.width, self.height))
        return image.resize((self.width, self.height), Resampling.BILINEAR)


def fit_images(column: str, image_size: int | None, transfer: "Dataset") -> ImageEncoder:
    """Settle mode and size on the public transfer set.

    Raises:
        DataError: if an image cannot be decoded, if all are alike, or if they differ in size and `image_size` is unset.
    """
    with warnings.catch_warnings(action="ignore"):
        images = {_look(stored) for stored in _stored(transfer, column)}
    if len(images) == 1 and len(transfer) > 1:
        raise DataError(
            f"the {len(transfer)} images of the transfer set are all alike once decoded: give images that differ"
        )
    mode: Literal["L", "RGB"] = "L" if all(mode in GREY_MODES for mode, _, _ in images) else "RGB"
    if image_size is not None:
        return ImageEncoder(column, mode, image_size, image_size, resize=True)
    sizes = sorted({size for _, size, _ in images})
    if len(sizes) > 1:
        raise sizes_differ(sizes[0], sizes[-1])
    return ImageEncoder(column, mode, *sizes[0], resize=False)


def animated(rows: "Dataset", column: str) -> int:
    """How many images hold several frames or pages (GIF, APNG, WebP, TIFF), of which the first is read.

    Reads headers only. An image that cannot be read is not counted: decoding it says so.
    """
    with warnings.catch_warnings(action="ignore"):
        return sum(_has_frames(stored) for stored in _stored(rows, column))


def sizes_differ(one: tuple[int, int], other: tuple[int, int]) -> DataError:
    """The error for images of two sizes (width, height)."""
    sizes = " and ".join(f"{width}x{height}" for width, height in (one, other))
    return DataError(f"images of {sizes} pixels cannot go into one model: set data.image_size to scale them")


Stored = dict[str, Any] | None
"""An image as a file: {bytes, path}, of which one may be None."""


def _stored(rows: "Dataset", column: str) -> Iterator[Stored]:
    """The images as files: quicker to decode than through the column's own feature."""
    from datasets import Image

    files = rows.select_columns([column]).cast_column(column, Image(decode=False)).with_format(None)
    for batch in files.iter(_BATCH):
        yield from batch[column]


def _look(stored: Stored) -> tuple[str, tuple[int, int], bytes]:
    """An image's mode, size and a digest of its pixels."""
    with _opened(stored) as image:
        seen = _seen(image, _name(stored))
        return seen.mode, seen.size, hashlib.blake2b(seen.tobytes(), digest_size=16).digest()


def _has_frames(stored: Stored) -> bool:
    content = None if stored is None else stored["bytes"]
    if content is not None and (
        content.startswith(b"\xff\xd8") or (content.startswith(b"\x89PNG") and b"acTL" not in content)
    ):
        return False  # told without a decoder: most images are single ones of these two formats
    try:
        with _opened(stored) as image:  # a JPEG with further pictures (MPO) is one photograph
            return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except DataError:
        return False


def _seen(image: "Image", name: str) -> "Image":
    """The image as a viewer shows it: upright, and over white where it is transparent."""
    image.load()
    image = _upright(image)
    return _over_white(image, name) if image.has_transparency_data else image


def _upright(image: "Image") -> "Image":
    from PIL.ExifTags import Base
    from PIL.Image import Transpose

    try:
        turn = TURNS.get(image.getexif().get(Base.Orientation, 1))
    except Exception:  # a broken block, in any of many ways: viewers show such an image as it is stored
        return image
    return image if turn is None else image.transpose(Transpose[turn])


def _over_white(image: "Image", name: str) -> "Image":
    from PIL import Image

    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    seen = Image.new("RGB", image.size, "white")
    seen.paste(layer, mask=layer)
    if _plain(seen) and not _plain(layer):
        raise DataError(
            f"nothing of {name} is left over white: what it shows is white or wholly transparent; "
            "put it on a background of another colour"
        )
    return seen.convert("L") if image.mode in GREY_MODES else seen


def _plain(image: "Image") -> bool:
    """Whether all pixels are equal."""
    return all(low == high for low, high in image.getextrema())  # type: ignore[misc]  # a pair for each band


def _name(stored: Stored) -> str:
    if stored is None or (stored["bytes"] is None and not stored["path"]):
        raise DataError("a row has no image: remove it")
    if not stored["path"]:
        return f"an image of {len(stored['bytes']):,} bytes"
    return str(stored["path"]) if stored["path"].isprintable() else repr(stored["path"])


def _file(stored: dict[str, Any]) -> IO[bytes]:
    if stored["bytes"] is not None:
        return io.BytesIO(stored["bytes"])
    path = Path(stored["path"])
    if path.exists() and not path.is_file():  # opening a pipe waits, opening a device may do anything
        raise OSError(0, "it is no file")
    return path.open("rb")


@contextmanager
def _opened(stored: Stored) -> "Iterator[Image]":
    """An image of which only the header is read, and which may be decoded.

    Raises:
        DataError: also in place of whatever is raised while it is decoded.
    """
    from PIL import Image

    name = _name(stored)
    assert stored is not None
    try:
        with _file(stored) as file:
            image = Image.open(file, formats=FORMATS)
            if _decoded_pixels(image) > MAX_PIXELS:
                raise _too_large(name)
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{name} has more than 8 bits a channel (mode {image.mode}): convert it to 8 bits")
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except Exception as error:  # decoders raise OSError, struct.error, zlib.error, MemoryError and more
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"cannot read {name}: {error.strerror}") from error
        raise DataError(
            f"cannot decode {name}: not a whole {', '.join(FORMATS)} image; remove or replace it"
        ) from error


def _decoded_pixels(image: "Image") -> int:
    """Pixels that decoding takes: a TIFF's tile may be larger than its image."""
    tile_width, tile_height = (int(getattr(image, "tag_v2", {}).get(tag, 0)) for tag in (322, 323))
    return max(image.width * image.height, tile_width * tile_height)


def _too_large(name: str) -> DataError:
    return DataError(f"{name} has more than {MAX_PIXELS:,} pixels: scale it down")
