"""Images become float32 in [0, 1] as a viewer shows them, of the size and mode that the transfer set settles."""

import contextlib
import io
import os
import resource
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pil

from securekd.data import images, load
from securekd.data.images import ImageEncoder, animated, fit_images
from securekd.errors import DataError

from .conftest import png

ORIENTATION = 274
SEEN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: np.rot90(stored, 1),
}
"""EXIF 2.32, 4.6.4: where row 0 and column 0 of what is stored stand in what is seen."""


def dataset(images: list[Any]) -> Any:
    from datasets import Dataset, Features, Image

    return Dataset.from_dict({"image": images}, features=Features({"image": Image()}))


def stored(image: Pil.Image, format: str = "PNG", name: str = "some.image", **options: Any) -> dict[str, Any]:
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return {"bytes": out.getvalue(), "path": name}


def decode(*pictures: Any, mode: Any = "L", size: tuple[int, int] = (7, 5)) -> np.ndarray:
    """Pixels 0 to 255 as an encoder of that mode and size gives them, each the same as from a Dataset of its own."""
    pixels = ImageEncoder("image", mode, *size, resize=False).encode(dataset(list(pictures))) * 255
    return np.rint(pixels).astype(np.uint8)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def exif(orientation: object) -> Pil.Exif:
    block = Pil.Exif()
    block[ORIENTATION] = orientation
    return block


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


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_a_photograph_taken_sideways_is_read_upright(format: str, options: dict[str, Any], orientation: int) -> None:
    image = Pil.fromarray(noise(5, 7))
    flat = decode(stored(image, format, **options))[0, 0]
    seen = SEEN[orientation](flat)
    turned = stored(image, format, exif=exif(orientation), **options)
    assert fit_images("image", None, dataset([turned])).shape[1:] == seen.shape  # the size is that of what is seen
    assert np.array_equal(decode(turned, size=seen.shape[::-1])[0, 0], seen)
    scaled = ImageEncoder("image", "L", 3, 3, resize=True).encode(dataset([turned, stored(Pil.fromarray(seen))]))
    assert np.array_equal(scaled[0], scaled[1])


def test_photographs_are_upright_from_a_folder_and_from_parquet(tmp_path: Path) -> None:
    upright = noise(5, 7)
    (tmp_path / "folder" / "cat").mkdir(parents=True)
    Pil.fromarray(np.rot90(upright, 1)).save(tmp_path / "folder" / "cat" / "a.png", exif=exif(6))
    data = load(str(tmp_path / "folder"))
    dataset([stored(Pil.fromarray(np.rot90(upright, 1)), exif=exif(6))]).to_parquet(tmp_path / "x.parquet")
    for source in (data, load(str(tmp_path / "x.parquet"))):
        assert np.array_equal(fit_images("image", None, source).encode(source)[0, 0], upright / np.float32(255))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_orientation_behind_the_pixels_or_broken() -> None:
    flat = noise(5, 7)
    whole = png(flat)
    end = whole.rindex(b"IEND") - 4
    block = exif(6).tobytes()[6:]  # without the JPEG's Exif\0\0
    late = {"bytes": whole[:end] + chunk(b"eXIf", block) + whole[end:], "path": "late.png"}
    assert np.array_equal(decode(late, size=(5, 7))[0, 0], SEEN[6](flat))
    for broken in (b"", b"II", b"nonsense", block[:9], block[:14], b"II" + block[2:], b"\xff" * 40):
        bad = {"bytes": whole[:33] + chunk(b"eXIf", broken) + whole[33:], "path": "bad.png"}
        assert np.array_equal(decode(bad)[0, 0], flat)
        assert fit_images("image", None, dataset([stored(Pil.fromarray(flat), "JPEG", exif=broken)])).shape == (1, 5, 7)
    for strange in (0, 9, 65535):
        assert np.array_equal(decode(stored(Pil.fromarray(flat), exif=exif(strange)))[0, 0], flat)


def shape_in_alpha(seed: int) -> np.ndarray:
    return noise(5, 7, seed=seed)


@pytest.mark.parametrize("grey", [0, 100])
def test_a_shape_in_the_alpha_channel_alone_is_seen_over_white(grey: int) -> None:
    alphas = [shape_in_alpha(seed) for seed in range(3)]
    expected = np.stack([np.rint((grey * a.astype(float) + 255 * (255 - a.astype(float))) / 255) for a in alphas])
    flat = np.full((5, 7), grey, np.uint8)
    for format in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if format == "WEBP" else {}
        rgba = [stored(Pil.fromarray(np.dstack([flat] * 3 + [a])), format, **options) for a in alphas]
        assert np.abs(decode(*rgba, mode="RGB").astype(float) - expected[:, None]).max() <= 1
        assert fit_images("image", None, dataset(rgba)).mode == "RGB"
    la = [stored(Pil.fromarray(np.dstack([flat, a]))) for a in alphas]
    assert fit_images("image", None, dataset(la)).mode == "L"
    assert np.abs(decode(*la)[:, 0].astype(float) - expected).max() <= 1


def test_transparent_colours_of_palettes_and_of_png_are_white() -> None:
    indices = noise(5, 7) % 3
    palette = Pil.fromarray(indices)
    palette = palette.convert("P")
    palette.putdata(indices.ravel().tolist())
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    colours = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90]], np.uint8)
    for format in ("PNG", "GIF"):
        seen = decode(stored(palette, format, transparency=1), mode="RGB")[0].transpose(1, 2, 0)
        assert np.array_equal(seen, colours[indices])
    some = stored(palette, transparency=bytes([255, 0, 255]))
    assert np.array_equal(decode(some, mode="RGB")[0].transpose(1, 2, 0), colours[indices])
    grey = stored(Pil.fromarray(indices), transparency=1)
    assert np.array_equal(decode(grey)[0, 0], np.where(indices == 1, 255, indices))
    assert fit_images("image", None, dataset([grey])).mode == "L"
    colour = stored(Pil.fromarray(colours[indices] // 2), transparency=(127, 127, 127))
    seen = np.where((indices == 1)[..., None], 255, colours[indices] // 2)
    assert np.array_equal(decode(colour, mode="RGB")[0].transpose(1, 2, 0), seen)


def test_white_on_transparent_is_refused_and_what_is_opaque_stays() -> None:
    white = np.full((5, 7, 3), 255, np.uint8)
    for lost in (
        np.dstack([white, shape_in_alpha(0)]),  # white glyphs
        np.dstack([noise(5, 7, 3), np.zeros((5, 7), np.uint8)]),  # all of it transparent
        np.dstack([white[..., 0], shape_in_alpha(1)]),
    ):
        with pytest.raises(DataError, match=r"nothing of icon\.png is left over white.*background"):
            decode(stored(Pil.fromarray(lost), name="icon.png"))
    blank = np.zeros((5, 7, 4), np.uint8)
    assert (decode(stored(Pil.fromarray(blank))) == 255).all()
    opaque = np.dstack([noise(5, 7, 3), np.full((5, 7), 255, np.uint8)])
    assert np.array_equal(decode(stored(Pil.fromarray(opaque)), mode="RGB")[0].transpose(1, 2, 0), opaque[..., :3])


def test_a_transfer_set_of_equal_images_is_refused() -> None:
    alike = [stored(Pil.fromarray(np.full((4, 4), 9, np.uint8)), format) for format in ("PNG", "BMP", "TIFF")]
    with pytest.raises(DataError, match="the 3 images of the transfer set are all alike"):
        fit_images("image", None, dataset(alike))
    assert fit_images("image", None, dataset(alike[:1])).mode == "L"


def test_print_colours_bilevel_and_deep_images() -> None:
    red = Pil.new("CMYK", (7, 5), (0, 255, 255, 0))
    for format in ("JPEG", "TIFF"):  # a JPEG stores it inverted, as Adobe does
        seen = decode(stored(red, format), mode="RGB")[0, :, 2, 3].astype(int)
        assert np.abs(seen - [255, 0, 0]).max() <= 3
    bits = noise(5, 7) > 127
    for format, options in (("PNG", {}), ("TIFF", {"compression": "group4"}), ("PPM", {}), ("BMP", {})):
        one = stored(Pil.fromarray(bits), format, **options)
        assert fit_images("image", None, dataset([one])).mode == "L"
        assert np.array_equal(decode(one)[0, 0], bits * 255)
    for deep in (Pil.fromarray(noise(5, 7).astype(np.uint16)), Pil.fromarray(noise(5, 7).astype(np.float32))):
        with pytest.raises(DataError, match=r"scan\.tif has more than 8 bits a channel"):
            decode(stored(deep, "TIFF", name="scan.tif"))
    with pytest.raises(DataError, match="has more than 8 bits"):
        decode({"bytes": b"P5 7 5 65535\n" + bytes(70), "path": None})


@pytest.mark.parametrize(
    ("format", "options"),
    [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_the_first_frame_of_an_animation_is_read_and_animations_are_counted(
    format: str, options: dict[str, Any]
) -> None:
    one, other = (Pil.fromarray(noise(5, 7, seed=seed)) for seed in (0, 1))
    moving = stored(one, format, save_all=True, append_images=[other], **options)
    still = stored(one, format, **options)
    assert np.array_equal(decode(moving), decode(still))
    assert animated(dataset([moving, still, None, {"bytes": b"broken", "path": None}, moving]), "image") == 2


def test_an_image_of_more_pixels_than_the_bound_is_refused_before_it_is_decoded() -> None:
    def sized(width: int, height: int) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99)))

    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0," + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\2"
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 9000, 9000, 1, 24, *[0] * 6) + bytes(45)
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 2**15),
        (323, 2**15),
        (324, 8),
        (325, 9),
    ]
    tiles = b"II*\0\x08\0\0\0" + struct.pack("<H", 10) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
    for large in (sized(8193, 8192), sized(10**5, 10**5), gif, bmp, b"P6 9000 9000 255\n" + bytes(9), tiles + bytes(4)):
        with pytest.raises(DataError, match=r"bomb has more than 67,108,864 pixels: scale it down"):
            fit_images("image", 8, dataset([{"bytes": large, "path": "bomb"}]))


MEMORY = """
    import io, resource, sys
    from datasets import Dataset, Features, Image
    from PIL import Image as Pil
    from securekd.data.images import fit_images

    def used():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    def stored(grey):
        out = io.BytesIO()
        Pil.new("RGB", (3000, 3000), (grey, grey, grey)).save(out, "PNG", compress_level=1)
        return {"bytes": out.getvalue(), "path": None}

    rows = Dataset.from_dict({"image": [stored(i) for i in range(8)]}, features=Features({"image": Image()}))
    before = used()
    fit_images("image", 8, rows).encode(rows)
    print(used() - before)
"""


def test_one_decoded_image_is_in_memory_at_a_time() -> None:
    """Eight of 34 MiB each, decoded: before, fitting kept them all."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY)], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120  # MiB: one image, and its pixels as bytes


def samples() -> list[dict[str, Any]]:
    image = Pil.fromarray(noise(24, 32, 4))
    colour, palette = image.convert("RGB"), image.convert("P")
    more = {"save_all": True, "append_images": [image.rotate(180)]}
    return [
        stored(image, exif=exif(6)),
        stored(palette, transparency=3),
        stored(image, **more),
        stored(colour, "JPEG", exif=exif(6)),
        stored(colour.convert("CMYK"), "JPEG", progressive=True),
        stored(image, "WEBP", exif=exif(6)),
        stored(image, "WEBP", **more),
        stored(palette, "GIF", save_all=True, append_images=[palette.rotate(180)], transparency=2),
        stored(colour, "BMP"),
        stored(palette, "BMP"),
        stored(colour, "TIFF", exif=exif(6)),
        stored(colour, "TIFF", compression="tiff_lzw"),
        stored(image, "TIFF", compression="tiff_adobe_deflate", **more),
        stored(colour, "PPM"),
    ]


@pytest.mark.parametrize("whole", samples(), ids=lambda sample: str(sample["bytes"][:4]))
def test_a_file_that_is_cut_is_refused_by_name(whole: dict[str, Any], tmp_path: Path) -> None:
    content = whole["bytes"]
    encoder = ImageEncoder("image", "RGB", 8, 8, resize=True)
    for length in (0, 1, 8, 20, len(content) // 4, len(content) // 3):
        (tmp_path / "cut").write_bytes(content[:length])
        for bad in ({"bytes": content[:length], "path": "cut"}, {"bytes": None, "path": str(tmp_path / "cut")}):
            with pytest.raises(DataError, match=r"cannot (decode|read) \S*cut: ") as caught:
                encoder.encode(dataset([bad]))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raised",
    [struct.error("x"), OverflowError(), MemoryError(), zlib.error(), IndexError(), KeyError("\n"), EOFError()],
)
def test_whatever_a_decoder_raises_names_the_file(monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    def fail(*_: object) -> None:
        raise raised

    broken = stored(Pil.fromarray(noise(5, 7)), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(DataError, match=r"^cannot decode some\.image: not a whole"):
        decode(broken)


def test_paths_that_are_no_files_are_refused_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "text.png").write_text("an image, they said")
    for name in ("pipe.png", "loop.png", "lost.png", "text.png", "folder\n.png", "", "x" * 300 + ".png"):
        path = str(tmp_path / name)
        with pytest.raises(DataError, match="cannot (read|decode)") as caught:
            decode({"bytes": None, "path": path})
        assert repr(path)[1:-1] in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot read /dev/zero: it is no file"):
        decode({"bytes": None, "path": "/dev/zero"})


@settings(max_examples=120)
@given(
    st.sampled_from(samples()),
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 120), st.integers(0, 4000)),
            st.integers(0, 8),
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\xff" * 4, b"\0\0\xff\xff", b"\0\0\1\0", b"\x7f\xff"])),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_a_damaged_file_is_read_or_refused_by_name(whole: dict[str, Any], damage: list[tuple[int, int, bytes]]) -> None:
    """Bytes replaced, inserted and removed, checksums put right: nothing but a DataError, and little memory."""
    content = whole["bytes"]
    for at, removed, inserted in damage:
        at = min(at, len(content))
        content = content[:at] + inserted + content[at + removed :]
    decode(stored(Pil.fromarray(noise(5, 7))))  # whatever is imported only now is not the image's memory
    damaged = [dataset([{"bytes": one, "path": "damaged.bin"}]) for one in (content, with_checksums(content))]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 2**18)
        for rows in damaged:
            with contextlib.suppress(DataError), naming("damaged.bin"):
                encoded = ImageEncoder("image", "RGB", 8, 8, resize=True).encode(rows)
                assert 0 <= encoded.min() <= encoded.max() <= 1
            assert animated(rows, "image") in (0, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """A DataError within names the file, in one line."""
    try:
        yield
    except DataError as error:
        if name not in str(error) or "\n" in str(error):
            raise AssertionError(str(error)) from error
        raise


def with_checksums(content: bytes) -> bytes:
    """A PNG with its chunks' checksums put right; anything else as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    made, at = content[:8], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        made += chunk(content[at + 4 : at + 8], content[at + 8 : at + 8 + length])
        at += 12 + length
    return made
