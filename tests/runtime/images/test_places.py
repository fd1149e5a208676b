"""Where files hold the text that says how an image was made, in which encodings, and how much of it."""

from __future__ import annotations

import gzip
import html
import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import sdrt
from sdrt import RequestError
from sdrt.images.places.exif import decode_comment
from sdrt.images.places.limits import MOST_TEXT

PROMPT = "a lighthouse, 灯台 \N{ROCKET} é"
LINE = "Steps: 8, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 64x64"
TEXT = f"{PROMPT}\nNegative prompt: 霧\n{LINE}"


def encoded(image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, format=image_format, **options)
    return buffer.getvalue()


def assert_read(content: bytes, *, prompt: str = PROMPT, negative: str = "霧") -> None:
    found = sdrt.read_metadata(content)
    assert (found.prompt, found.negative_prompt, found.settings.get("Seed")) == (prompt, negative, "5")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, behind: tuple[bytes, ...] = ()) -> bytes:
    plain = encoded()
    head, end = plain[:33], plain[-12:]
    return b"".join([head, *chunks, plain[33:-12], *behind, end])


UTF8 = TEXT.encode()
CHUNKS = {
    "tEXt in UTF-8": chunk(b"tEXt", b"parameters\0" + UTF8),
    "zTXt in UTF-8": chunk(b"zTXt", b"parameters\0\0" + zlib.compress(UTF8)),
    "iTXt": chunk(b"iTXt", b"parameters\0\0\0\0\0" + UTF8),
    "iTXt with a language": chunk(b"iTXt", "parameters\0\0\0de\0Paramètres\0".encode() + UTF8),
    "iTXt compressed": chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(UTF8)),
}


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("kind", CHUNKS)
def test_chunks_of_a_png_before_and_behind_the_pixels(kind: str, where: str) -> None:
    assert_read(png(CHUNKS[kind]) if where == "before" else png(behind=(CHUNKS[kind],)))


def test_latin_1_is_latin_1() -> None:
    text = f"déjà vu\nNegative prompt: blé\n{LINE}"
    assert_read(
        png(chunk(b"tEXt", b"parameters\0" + text.encode("latin-1"))), prompt="déjà vu", negative="blé"
    )


@pytest.mark.parametrize("prompt", ["Ã©", "Â\x80 \xad", "é", "naïve ™"])
def test_what_sdrt_writes_is_never_taken_for_another_encoding(prompt: str, tmp_path: Path) -> None:
    from sdrt.images.files import write_image

    write_image(tmp_path / "a.png", Image.new("RGB", (8, 8)), f"{prompt}\n{LINE}", force=False)
    assert sdrt.read_metadata(tmp_path / "a.png").prompt == prompt


def test_a_cut_png_keeps_the_text_before_the_cut() -> None:
    whole = png(CHUNKS["iTXt"])
    assert_read(whole[: whole.index(b"IDAT") + 10])
    with pytest.raises(RequestError, match="is damaged: it begins like PNG"):
        sdrt.read_metadata(whole[:20])


def exif_of(comment: bytes, order: str = ">") -> bytes:
    """EXIF with a user comment, as bytes of no type, in either order of numbers."""
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8)
    ifd = struct.pack(f"{order}HHHIII", 1, 0x8769, 4, 1, 26, 0)
    inner = struct.pack(f"{order}HHHIII", 1, 0x9286, 7, len(comment), 44, 0)
    return b"Exif\0\0" + head + ifd + inner + comment


COMMENTS = {
    "UTF-16, big end first": b"UNICODE\0" + TEXT.encode("utf-16-be"),
    "UTF-16, little end first": b"UNICODE\0" + TEXT.encode("utf-16-le"),
    "UTF-16 with a mark": b"UNICODE\0" + b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16 with the other mark": b"UNICODE\0" + b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-16 and a zero": b"UNICODE\0" + TEXT.encode("utf-16-le") + b"\0\0",
    "UTF-8 behind UNICODE": b"UNICODE\0" + UTF8,
    "UTF-8 behind ASCII": b"ASCII\0\0\0" + UTF8 + b"\0",
    "UTF-8 behind zeros": b"\0" * 8 + UTF8,
    "UTF-16 behind zeros": b"\0" * 8 + TEXT.encode("utf-16-le"),
    "UTF-8 alone": UTF8,
    "UTF-16 alone": b"\xff\xfe" + TEXT.encode("utf-16-le"),
}


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("kind", COMMENTS)
def test_user_comments_in_every_encoding(kind: str, order: str) -> None:
    assert_read(encoded("JPEG", exif=exif_of(COMMENTS[kind], order)))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "AVIF", "TIFF", "PNG"])
def test_every_format_with_exif(image_format: str) -> None:
    content = exif_of(COMMENTS["UTF-16, little end first"])
    assert_read(encoded(image_format, exif=content if image_format != "TIFF" else as_exif(content)))


def as_exif(content: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(content)
    return exif


@pytest.mark.parametrize("text", ["русский", "ελληνικά", "ひらがな"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_the_order_is_told_without_a_letter_of_ascii(text: str, encoding: str) -> None:
    assert decode_comment(b"UNICODE\0" + text.encode(encoding)) == text


def test_tags_of_the_camera_and_of_windows() -> None:
    described, of_windows = Image.Exif(), Image.Exif()
    described[0x010E] = f"a red circle\nNegative prompt: fog\n{LINE}"
    assert_read(encoded("JPEG", exif=described), prompt="a red circle", negative="fog")
    of_windows[0x9C9C] = TEXT.encode("utf-16-le")
    assert_read(encoded("JPEG", exif=of_windows))


@pytest.mark.parametrize("image_format", ["JPEG", "GIF"])
def test_comments_of_the_format(image_format: str) -> None:
    assert_read(encoded(image_format, comment=UTF8))


def test_xmp() -> None:
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><dc:description><rdf:Alt>'
        f'<rdf:li xml:lang="x-default">{html.escape(TEXT)}</rdf:li></rdf:Alt></dc:description>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    assert_read(encoded("WEBP", xmp=xmp.encode()))
    assert_read(encoded("JPEG", xmp=xmp.encode()))
    assert_read(png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode())))


def hidden(
    text: bytes, *, mode: str, compressed: bool, size: tuple[int, int] = (67, 53), bits: int | None = None
) -> Image.Image:
    """An image with a text in its lowest bits, written bit by bit as sd-webui-stealth-pnginfo describes it."""
    signature = f"stealth_{'png' if mode == 'alpha' else 'rgb'}{'comp' if compressed else 'info'}".encode()
    content = gzip.compress(text) if compressed else text
    length = (len(content) * 8 if bits is None else bits).to_bytes(4, "big")
    stream = "".join(format(byte, "08b") for byte in signature + length + content)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    noise[..., 3] = 255
    image = Image.fromarray(noise).copy()
    pixels = image.load()
    assert pixels is not None
    at = 0
    for x in range(size[0]):
        for y in range(size[1]):
            values = list(pixels[x, y])  # type: ignore[arg-type]
            for channel in (3,) if mode == "alpha" else (0, 1, 2):
                if at < len(stream):
                    values[channel] = values[channel] & 254 | int(stream[at])
                    at += 1
            pixels[x, y] = tuple(values)
    assert at == len(stream)
    return image


def saved(image: Image.Image, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, lossless=True, exact=True)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mode", ["alpha", "rgb"])
def test_the_lowest_bits(mode: str, compressed: bool, image_format: str) -> None:
    image = hidden(UTF8, mode=mode, compressed=compressed)
    assert_read(saved(image, image_format))
    if mode == "rgb":
        assert_read(saved(image.convert("RGB"), image_format))


def test_a_text_that_is_seen_goes_before_one_that_is_hidden() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", TEXT)
    buffer = io.BytesIO()
    hidden(f"other\n{LINE}".encode(), mode="alpha", compressed=True).save(buffer, "PNG", pnginfo=info)
    assert_read(buffer.getvalue())


@pytest.mark.parametrize(
    "image",
    [
        hidden(b"", mode="alpha", compressed=True, bits=800),
        hidden(b"", mode="alpha", compressed=False, bits=80),
        hidden(b"short", mode="rgb", compressed=False, bits=10**8),
        Image.new("RGBA", (1, 1)),
        Image.new("RGB", (4, 4)),
        Image.new("L", (40, 40)),
        Image.new("P", (40, 40)),
    ],
)
def test_pixels_without_a_text(image: Image.Image) -> None:
    assert sdrt.read_metadata(saved(image)).settings == {}


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such pipes")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = saved(hidden(UTF8, mode="alpha", compressed=True))
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    found = sdrt.read_metadata(pipe)
    writer.join()
    assert found.prompt == PROMPT


BOMB = zlib.compress(b"a" * (MOST_TEXT + 1), 9)


@pytest.mark.parametrize(
    "content",
    [
        png(chunk(b"zTXt", b"parameters\0\0" + BOMB)),
        png(chunk(b"iTXt", b"parameters\0\1\0\0\0" + BOMB)),
        png(
            behind=tuple(
                chunk(b"zTXt", b"a%d\0\0" % i + zlib.compress(b"a" * (20 << 20), 9)) for i in range(3)
            )
        ),
        saved(hidden(b"a" * (MOST_TEXT + 1), mode="alpha", compressed=True, size=(600, 500))),
        saved(hidden(b"a", mode="alpha", compressed=False, bits=2**32 - 1)),
    ],
    ids=["zTXt", "iTXt", "many", "gzip", "length"],
)
def test_texts_are_bounded(content: bytes) -> None:
    assert len(content) < 2 << 20
    with pytest.raises(RequestError, match=r"has more than 32 MB of text: expected less text"):
        sdrt.read_metadata(content)


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        TEXT.replace("\n", "\r\n").encode() + b"\r\n",
    ],
)
def test_a_text_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "infotext.txt"
    path.write_bytes(content)
    found = sdrt.read_metadata(path)
    assert (found.format, found.size, found.settings["Steps"]) == ("TEXT", (0, 0), "8")
    if b"\r\n" not in content:
        assert_read(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just a text", "is not an image: expected an image in PNG, .*, or a text with its settings"),
        (b"<svg/>", "is an SVG drawing"),
        (b"{}", "is not an image"),
        (b"\0\1\2", "is not an image"),
        (b"", "is empty"),
        (b"\xff\xfe\0", "is not an image"),
        (f"{LINE}\n".encode() * 100_000, "is not an image"),
    ],
)
def test_a_text_that_says_nothing(content: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        sdrt.read_metadata(content)
    assert "model folder" not in str(caught.value)


def test_damaged_files_take_no_long_time_and_raise_one_line() -> None:
    random = np.random.default_rng(0)
    sources = [png(CHUNKS["iTXt compressed"]), encoded("JPEG", exif=exif_of(COMMENTS["UTF-8 alone"]))]
    start = time.perf_counter()
    for source in sources:
        for _ in range(300):
            damaged = bytearray(source)
            for place in random.integers(8, len(source), 5):
                damaged[place] = random.integers(256)
            try:
                sdrt.read_metadata(bytes(damaged))
            except RequestError as error:
                assert "\n" not in str(error)  # noqa: PT017
    assert time.perf_counter() - start < 30
