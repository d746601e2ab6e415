"""Images become float32 in [0, 1] of one size and mode, which the public transfer set settles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from securekd.data import load
from securekd.data.images import fit_images
from securekd.errors import DataError

from .conftest import png


def dataset(images: list[Any]) -> Any:
    from datasets import Dataset, Features, Image

    return Dataset.from_dict({"image": images}, features=Features({"image": Image()}))


def test_pixels_agree_with_pillow_one_by_one(image_folder: Callable[..., str]) -> None:
    data = load(image_folder(8, mode="RGB", sizes=((7, 5),)))
    encoder = fit_images("image", None, data)
    encoded = encoder.encode(data)
    assert encoder.shape == (3, 5, 7)
    assert encoded.dtype == np.float32
    twin = np.stack([np.asarray(row["image"], dtype=np.float32).transpose(2, 0, 1) / 255 for row in data])
    assert np.array_equal(encoded, twin)


def test_grey_where_the_transfer_set_is_grey() -> None:
    grey = np.full((4, 4), 51, np.uint8)
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 255
    one, both = dataset([grey]), dataset([grey, colour])
    assert fit_images("image", None, one).encode(both).shape == (2, 1, 4, 4)
    assert np.allclose(fit_images("image", None, one).encode(one), 0.2)
    assert np.allclose(fit_images("image", None, both).encode(both)[1, :, 0, 0], [1, 0, 0])


def test_image_size_scales(image_folder: Callable[..., str]) -> None:
    data = load(image_folder(4, sizes=((6, 6), (9, 4))))
    encoder = fit_images("image", 8, data)
    first = np.asarray(data[0]["image"].resize((8, 8), Pil.Resampling.BILINEAR), dtype=np.float32) / 255
    assert np.array_equal(encoder.encode(data)[0, 0], first)


def test_sizes_that_differ_are_named(image_folder: Callable[..., str]) -> None:
    mixed = load(image_folder(4, sizes=((6, 6), (9, 4))))
    with pytest.raises(DataError, match=r"6x6 and 9x4.*data\.image_size"):
        fit_images("image", None, mixed)
    encoder = fit_images("image", None, mixed.select([0]))
    with pytest.raises(DataError, match=r"9x4 and 6x6|6x6 and 9x4"):
        encoder.encode(mixed)


def test_missing_broken_and_deep_images(tmp_path: Path) -> None:
    good = {"bytes": png(np.zeros((4, 4), np.uint8)), "path": None}
    encoder = fit_images("image", None, dataset([good]))
    for bad, said in (
        (None, "no image"),
        ({"bytes": good["bytes"][:45], "path": "cut.png"}, r"cut\.png"),
        ({"bytes": b"nothing", "path": None}, "cannot decode"),
        ({"bytes": None, "path": str(tmp_path / "gone.png")}, r"gone\.png"),
        ({"bytes": png(np.zeros((4, 4), np.uint16)), "path": "deep.png"}, r"deep\.png has more than 8 bits"),
    ):
        with pytest.raises(DataError, match=said):
            encoder.encode(dataset([good, bad]))
