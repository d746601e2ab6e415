"""A folder of images by class: images are told by content, and what is passed over is counted and said."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from securekd.data import load
from securekd.data.folders import read_folder
from securekd.errors import DataError

from .conftest import png


def image(path: Path, format: str = "PNG", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7), dtype=np.uint8)
    Pil.fromarray(pixels).save(path, format=format)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of one image each."""
    image(tmp_path / "photos" / "cat" / "1.png")
    image(tmp_path / "photos" / "dog" / "1.png", seed=1)
    return tmp_path / "photos"


def names(folder: Path) -> list[str]:
    from datasets import Image

    files = load(str(folder)).cast_column("image", Image(decode=False))["image"]
    return [str(Path(file["path"]).relative_to(folder)) for file in files]


def test_images_are_read_whatever_they_are_called(folder: Path) -> None:
    called = {
        "JPEG": ("a.jfif", "a.jpe", "a.JPG", "a.png", "photo", "a.jpg.bak", "a.heic"),
        "BMP": ("b.dib", "b.bmp"),
        "PNG": ("c.apng", "c.PnG", "c.txt"),
        "PPM": ("d.pbm", "d.pnm", "d.pgm", "d.ppm"),
        "TIFF": ("e.tiff", "e.dat"),
        "GIF": ("f.gif", "f..."),
        "WEBP": ("g.webp", "g"),
    }
    for format, files in called.items():
        for name in files:
            image(folder / "cat" / name, format)
    (folder / "cat" / "commented.pgm").write_bytes(b"P5\n# made by hand\n2 2\n255\n1234")
    data, notes = read_folder(folder)
    assert data["label"][:].count(0) == 2 + sum(map(len, called.values()))
    assert all(row["image"].size in {(7, 5), (2, 2)} for row in data)
    assert notes == ()


def test_a_class_all_of_whose_images_have_another_suffix_is_read(folder: Path) -> None:
    for i in range(3):
        image(folder / "horse" / f"{i}.jfif", "JPEG", seed=i)
    data = load(str(folder))
    assert data.features["label"].names == ["cat", "dog", "horse"]
    assert data["label"][:] == [0, 1, 2, 2, 2]


def test_what_is_passed_over_is_counted_and_said(folder: Path) -> None:
    cat = folder / "cat"
    for i in range(5):
        (cat / f"note{i}.txt").write_text("BMW and P1 are not images")
    (cat / ".hidden.png").write_bytes(png(np.zeros((5, 7), np.uint8)))
    (folder / ".git").mkdir()
    image(cat / "more" / "deeper" / "1.png")
    image(folder / "beside.png")
    (folder / "README.md").write_text("about")
    (cat / "gone.png").symlink_to(cat / "nothing")
    (cat / "loop.png").symlink_to(cat / "loop.png")
    (cat / "all").symlink_to(folder)
    os.mkfifo(cat / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(cat / "socket.png"))
    (cat / "zero.png").symlink_to("/dev/zero")
    data, notes = read_folder(folder)
    assert names(folder) == ["cat/1.png", "dog/1.png"]
    assert len(data) == 2
    assert notes == (
        "1 image beside the class folders was passed over: 'beside.png'",
        "6 files that are no images were passed over: 'README.md', 'cat/note0.txt', 'cat/note1.txt' and 3 more",
        "1 file in a deeper folder was passed over: 'cat/more/deeper/1.png'",
        "2 hidden files or folders were passed over: '.git', 'cat/.hidden.png'",
        "1 link to a folder was passed over: 'cat/all'",
        "2 links that lead nowhere were passed over: 'cat/gone.png', 'cat/loop.png'",
        "3 pipes, sockets or devices were passed over: 'cat/pipe.png', 'cat/socket.png', 'cat/zero.png'",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("a.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),  # as telephones send it
        ("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0"),
        ("a.svg", b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'),
        ("drawing", b'<svg width="1"/>'),
        ("a.jxl", b"\xff\x0a\xfa\x1f"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n"),
        ("a.psd", b"8BPS\0\1"),
        ("scan", bytes(128) + b"DICM"),
        ("a.ico", b"\0\0\1\0\1\0"),
        ("a.tga", b"\0\0\2"),
        ("a.dng", b"II*\0\x08\0\0\0"),
        ("a.NEF", b"MM\0*\0\0\0\x08"),
    ],
)
def test_images_in_formats_that_are_not_decoded_are_counted(folder: Path, name: str, content: bytes) -> None:
    (folder / "cat" / name).write_bytes(content)
    data, notes = read_folder(folder)
    assert len(data) == 2
    assert notes == (f"1 image in a format that is not decoded was passed over: 'cat/{name}'",)


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.jfif", "a.tiff", "a.webp"])
@pytest.mark.parametrize("content", [b"", b"an image, they said", b"\x89PNG", bytes(2000)])
def test_a_file_that_is_named_as_an_image_and_is_none_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / "dog" / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"dog/{name}' is named as an image and holds none: remove or replace it"):
        load(str(folder))


def test_a_class_folder_without_an_image_is_refused_by_name(folder: Path) -> None:
    (folder / "horse").mkdir()
    with pytest.raises(
        DataError, match=r"class folder '\S+/photos/horse' holds no images: it takes one folder for each"
    ):
        load(str(folder))
    image(folder / "horse" / "train" / "1.png")
    with pytest.raises(DataError, match=r"photos/horse' holds no images \(1 file in a deeper folder was passed over: "):
        load(str(folder))
    (folder / "horse" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"horse' holds no images \(1 image in a format that is not decoded was passed"):
        load(str(folder))


def test_a_folder_that_links_to_itself_is_refused_by_name(folder: Path) -> None:
    (folder / "self").symlink_to(folder)
    with pytest.raises(DataError, match=r"class folder '\S+/self' holds no images"):
        load(str(folder))


def test_images_without_class_folders_are_counted(tmp_path: Path) -> None:
    for i in range(4):
        image(tmp_path / f"{i}.png")
    with pytest.raises(
        DataError, match=r"no images in class folders of '\S+' \(4 images beside the class folders were"
    ):
        load(str(tmp_path))


def test_links_to_images_and_to_class_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "2.png").symlink_to(image(tmp_path / "elsewhere" / "2.png", seed=2))
    (folder / "fox").symlink_to(tmp_path / "elsewhere")
    assert names(folder) == ["cat/1.png", "cat/2.png", "dog/1.png", "fox/2.png"]


@pytest.mark.parametrize("place", ["cat", "caf\udce9"])
@pytest.mark.parametrize("name", ["1.png", "caf\udce9.png"])
def test_names_that_are_not_utf8_are_refused_by_name(tmp_path: Path, place: str, name: str) -> None:
    image(tmp_path / place / "0.png")
    (tmp_path / place / name).write_bytes(png(np.zeros((5, 7), np.uint8)))
    if (place, name) == ("cat", "1.png"):
        assert names(tmp_path) == ["cat/0.png", "cat/1.png"]
        return
    with pytest.raises(DataError, match=r"caf\\udce9.*' is not UTF-8: rename it") as caught:
        load(str(tmp_path))
    assert str(caught.value).isascii()


def test_names_that_would_break_the_line_are_escaped(folder: Path) -> None:
    (folder / "cat" / "a\n\x1b[31m.txt").write_text("x")
    _, notes = read_folder(folder)
    assert notes == (r"1 file that is no image was passed over: 'cat/a\n\x1b[31m.txt'",)


def test_a_file_that_cannot_be_read_is_refused_by_name(folder: Path) -> None:
    (folder / "cat" / "2.png").symlink_to(
        "/proc/self/mem"
    )  # a plain file whose first bytes cannot be read, even by root
    with pytest.raises(DataError, match="cannot read .*cat/2.png': Input/output error"):
        load(str(folder))


def test_a_file_or_folder_without_permission_is_refused_by_name(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    for locked in (folder / "cat" / "1.png", folder / "cat"):
        locked.chmod(0)
        with pytest.raises(DataError, match=f"cannot read '{locked}': Permission denied"):
            load(str(folder))
        locked.chmod(0o755)
