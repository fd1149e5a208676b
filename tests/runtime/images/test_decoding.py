"""Only a closed list of formats is decoded, wherever an image comes from; the content decides, not the name."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sdrt
from sdrt import RequestError
from sdrt.images.decoding import EXPECTED, READABLE
from sdrt.images.metadata import read_metadata
from sdrt.images.reading import read_images, read_masks

RED, GREEN = (200, 30, 20), (20, 180, 40)
NAMES = [row.name for row in READABLE]


def content_of(name: str, size: tuple[int, int] = (24, 16)) -> bytes:
    """An image in a format: red on the left, green on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (size[0] // 2, 0, *size))
    buffer = io.BytesIO()
    image.save(buffer, format=name, **({"quality": 95} if name in ("JPEG", "WEBP", "AVIF") else {}))
    return buffer.getvalue()


def assert_halves(image: np.ndarray) -> None:
    assert image.shape == (16, 24, 3)
    assert np.abs(image[8, 2].astype(int) - RED).max() < 16
    assert np.abs(image[8, -3].astype(int) - GREEN).max() < 16


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The formats outside of the list whose code of Pillow was asked, which must stay none."""
    Image.init()
    asked: list[str] = []

    def watch(name: str) -> tuple[Any, Any]:
        def called(*_: Any) -> Any:
            asked.append(name)
            raise AssertionError(name)

        return called, called

    for name in set(Image.OPEN) - set(NAMES):
        monkeypatch.setitem(Image.OPEN, name, watch(name))
    yield asked
    assert asked == []


@pytest.mark.parametrize("name", NAMES)
def test_each_format_of_the_list_is_read_from_everywhere(
    tmp_path: Path, name: str, others: list[str]
) -> None:
    content = content_of(name)
    # The name says another format, and one that starts a program.
    path = tmp_path / "image.eps"
    path.write_bytes(content)
    with path.open("rb") as file:
        for value in (
            path,
            str(path),
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            file,
        ):
            (image,) = read_images("image", value)
            assert_halves(image)
    assert read_metadata(path).format == name
    assert read_metadata(path).size == (24, 16)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content_of("PNG"),))
    writer.start()
    (image,) = read_images("image", pipe)
    writer.join()
    assert_halves(image)


def test_an_open_file_is_read_from_its_start() -> None:
    file = io.BytesIO(content_of("PNG"))
    file.seek(100)
    assert_halves(read_images("image", file)[0])


OUTSIDE = {
    "a PDF document": b"%PDF-1.4\n%",
    "an EPS or PostScript file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "an SVG drawing": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a HEIC image": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a JPEG XL image": b"\xff\x0a\xfa\x1f",
    "a JPEG 2000 image": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a Photoshop file": b"8BPS\0\1",
    "a GIMP file": b"gimp xcf v011",
    "an icon": b"\0\0\1\0\1\0",
    "an OpenEXR image": b"v/1\1\2\0\0\0",
    "a Radiance image": b"#?RADIANCE\n",
    "a DDS texture": b"DDS |\0\0\0",
    "a QOI image": b"qoif\0\0",
    "a Netpbm image": b"P6\n2 2\n255\n" + bytes(12),
    "a FITS image": b"SIMPLE  =                    T",
    "a Windows metafile": b"\xd7\xcd\xc6\x9a\0\0",
    "a video": b"\0\0\0\x18ftypisom\0\0\2\0isomavc1",
    "a ZIP archive": b"PK\3\4\x14\0",
    "not an image": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_what_is_outside_of_the_list_is_named_and_never_given_to_pillow(
    tmp_path: Path, what: str, others: list[str]
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(OUTSIDE[what])
    for value, shown in ((path, repr(str(path))), (OUTSIDE[what], f"({len(OUTSIDE[what])} bytes)")):
        for read in (read_images, read_masks):
            with pytest.raises(RequestError) as caught:
                read("image", value)
            assert str(caught.value) == f"image {shown} is {what}: expected {EXPECTED}"
            assert (caught.value.argument, caught.value.fits) == ("image", EXPECTED)
    with pytest.raises(RequestError, match=f"image.png is {what}"):
        read_metadata(path)


@pytest.mark.parametrize("head", [b"<!-- -->" * 200, b" " * 1024, b"<?xml>" * 200, b"<!--" * 300])
def test_what_is_no_drawing_is_told_quickly(head: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(RequestError, match="is not an image"):
        read_images("image", head)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "name", sorted({"ICO", "PPM", "TGA", "PCX", "SGI", "EPS", "PDF", "DDS", "MSP", "XBM"})
)
def test_images_that_pillow_writes_in_other_formats_are_refused(name: str, others: list[str]) -> None:
    buffer = io.BytesIO()
    Image.new("1" if name in ("MSP", "XBM") else "RGB", (16, 16)).save(buffer, format=name)
    with pytest.raises(RequestError, match=r"image \(\d+ bytes\) is .*: expected an image in PNG"):
        read_images("image", buffer.getvalue())


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_raise_one_line(name: str, others: list[str]) -> None:
    content = content_of(name)
    random = np.random.default_rng(0)
    for end in (13, 20, 30, len(content) // 2, len(content) - 20):
        assert_read_or_refused(content[:end])
    for _ in range(150):
        damaged = bytearray(content)
        for place in random.integers(8, len(content), 4):
            damaged[place] = random.integers(256)
        assert_read_or_refused(bytes(damaged))


def assert_read_or_refused(content: bytes) -> None:
    try:
        (image,) = read_images("image", content)
    except RequestError as error:
        text = str(error)
        assert text.startswith("image (") and "\n" not in text  # noqa: PT018
    else:
        assert image.ndim == 3


def test_a_format_that_this_pillow_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import AvifImagePlugin

    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    with pytest.raises(
        RequestError, match=r"is in AVIF, which this Pillow cannot read: .*pip install --upgrade"
    ):
        read_images(
            "image", content_of("PNG").replace(content_of("PNG"), b"\0\0\0\x1cftypavif\0\0\0\0avifmif1")
        )


def test_reading_and_writing_import_only_the_format_s_own_module(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(content_of("AVIF"))
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from sdrt.images.files import write_image\n"
        "from sdrt.images.reading import read_images\n"
        "read_images('image', 'a.avif')\n"
        "write_image(Path('a.webp'), Image.new('RGB', (8, 8)), 'text', force=False)\n"
        "print(*[name for name in sys.modules if name.endswith('ImagePlugin')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    # Pillow itself imports the first five.
    common = {"PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PpmImagePlugin"}
    own = {"PIL.PngImagePlugin", "PIL.WebPImagePlugin", "PIL.AvifImagePlugin", "PIL.TiffImagePlugin"}
    assert set(done.stdout.split()) <= common | own


def test_one_module_of_the_runtime_opens_images() -> None:
    root = Path(sdrt.__file__).parent
    opening = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("Image.open", "PIL.Image.open"):
                opening.add(path.relative_to(root).as_posix())
    assert opening == {"images/decoding.py"}
