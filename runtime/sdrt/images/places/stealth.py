"""Texts in the lowest bits of pixels: Forge, reForge, SwarmUI and NovelAI can write how an image was made there.

Down the columns, from left to right, the lowest bits of alpha, or of red, green and blue, are a signature of 15 bytes,
the length of the text in bits (32 bits), and the text in UTF-8, perhaps compressed with gzip. The form is that of
sd-webui-stealth-pnginfo.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdrt.images.places.limits import MOST_TEXT, TooMuchTextError, inflated

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MOST_PIXELS", "stealth_text"]

MOST_PIXELS = 1 << 25
"""Pixels of the largest image that is searched. It takes 300 MB."""

_SIGNATURE = 15  # bytes
_LENGTH = 4


def stealth_text(image: Image.Image) -> str:
    """The text in the pixels of a decoded image, or an empty text.

    Raises:
        TooMuchTextError: the text is too long.
    """
    if image.mode not in ("RGB", "RGBA"):
        return ""
    columns = np.asarray(image).swapaxes(0, 1)
    if image.mode == "RGBA" and (text := _text(columns[..., 3:], b"stealth_pnginfo", b"stealth_pngcomp")):
        return text
    return _text(columns[..., :3], b"stealth_rgbinfo", b"stealth_rgbcomp")


def _text(columns: NDArray[np.uint8], plain: bytes, compressed: bytes) -> str:
    """The text in [width, height, channels], or an empty one if neither signature stands there."""
    signature = _bytes(columns, 0, _SIGNATURE)
    if signature not in (plain, compressed):
        return ""
    bits = int.from_bytes(_bytes(columns, _SIGNATURE, _LENGTH), "big")
    if bits > MOST_TEXT * 8:
        raise TooMuchTextError
    content = _bytes(columns, _SIGNATURE + _LENGTH, bits // 8)
    try:
        return (inflated(content, gzip=True) if signature == compressed else content).decode("utf-8")
    except (zlib.error, UnicodeDecodeError):
        return ""


def _bytes(columns: NDArray[np.uint8], start: int, count: int) -> bytes:
    """`count` bytes that begin at byte `start` of the lowest bits, or fewer at the end of the image."""
    _, height, channels = columns.shape
    per_column = height * channels
    first, last = start * 8 // per_column, -(-(start + count) * 8 // per_column)
    bits = (columns[first:last] & 1).reshape(-1)
    offset = start * 8 - first * per_column
    return np.packbits(bits[offset : offset + count * 8]).tobytes()
