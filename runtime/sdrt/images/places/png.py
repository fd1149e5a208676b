"""The texts of a PNG, also those after the pixels, which Pillow reads only together with the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from sdrt.images.places.limits import MOST_TEXT, TooMuchTextError, inflated

__all__ = ["PngTexts", "read_png"]

_SIGNATURE = 8
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
_MOST_CHUNKS = 1_000_000


@dataclass(kw_only=True)
class PngTexts:
    """The width and height in pixels, the texts by their keywords, and the content of the EXIF chunk."""

    size: tuple[int, int]
    texts: dict[str, str] = field(default_factory=dict)
    exif: bytes = b""


def read_png(file: BinaryIO) -> PngTexts | None:
    """Read the texts of a PNG, or return None if it has no header. The later of two with the same keyword counts.

    Raises:
        TooMuchTextError: there is too much text.
    """
    file.seek(_SIGNATURE)
    head = file.read(16)
    if len(head) < 16 or head[4:8] != b"IHDR":
        return None
    found = PngTexts(size=struct.unpack(">II", head[8:16]))
    file.seek(_SIGNATURE)
    total = 0
    for kind, content in _text_chunks(file):
        if kind == b"eXIf":
            found.exif = content
            continue
        with suppress(zlib.error):
            keyword, text = _READERS[kind](content)
            found.texts[keyword] = text
            total += len(text)
        if total > MOST_TEXT:
            raise TooMuchTextError
    return found


def _text_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The kind and content of each chunk with text, up to the end or to where the file is cut off."""
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind not in _TEXTS:
            file.seek(length + 4, 1)
            continue
        if length > MOST_TEXT:
            raise TooMuchTextError
        content = file.read(length)
        if len(content) < length:
            return
        file.seek(4, 1)
        yield kind, content


def _plain(content: bytes) -> tuple[str, str]:
    keyword, _, text = content.partition(b"\0")
    return keyword.decode("latin-1"), _latin(text)


def _compressed(content: bytes) -> tuple[str, str]:
    keyword, _, rest = content.partition(b"\0")
    return keyword.decode("latin-1"), _latin(inflated(rest[1:]))


def _international(content: bytes) -> tuple[str, str]:
    keyword, _, rest = content.partition(b"\0")
    is_compressed = rest[:1] != b"\0"
    _, _, rest = rest[2:].partition(b"\0")  # the language
    _, _, text = rest.partition(b"\0")  # the translated keyword
    return keyword.decode("latin-1"), (inflated(text) if is_compressed else text).decode("utf-8", "replace")


_READERS = {b"tEXt": _plain, b"zTXt": _compressed, b"iTXt": _international}


def _latin(text: bytes) -> str:
    """The text of a chunk that should be Latin-1. Several programs write UTF-8, such as stable-diffusion.cpp."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")
