"""How much text a file may have. A compressed text of a few bytes can become gigabytes."""

from __future__ import annotations

import zlib

__all__ = ["MOST_TEXT", "TooMuchTextError", "inflated"]

MOST_TEXT = 32 << 20
"""Bytes of text in a file, and of one text after it was decompressed. Graphs of ComfyUI have a few megabytes."""


class TooMuchTextError(ValueError):
    """A file has more than `MOST_TEXT` bytes of text."""


def inflated(content: bytes, *, gzip: bool = False) -> bytes:
    """Decompress a text.

    Raises:
        TooMuchTextError: the text is too long.
        zlib.error: the content is damaged.
    """
    machine = zlib.decompressobj(wbits=31 if gzip else zlib.MAX_WBITS)
    text = machine.decompress(content, MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise TooMuchTextError
    return text
