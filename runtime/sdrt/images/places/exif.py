"""The texts in EXIF, in whatever encoding a program has written them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decode_comment", "exif_texts"]

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x927C: "MakerNote",
    _USER_COMMENT: "UserComment",
    0x9C9C: "XPComment",
}
"""Tag → name. The user comment and the maker's note belong in a separate directory; Fooocus writes them outside it."""
# Nodes of ComfyUI write "prompt:{…}" and "Workflow: {…}" into the tags of the camera.
_LABELLED = re.compile(r"(prompt|workflow):\s*(?=\{)", re.IGNORECASE)
_MARK = 8
_UNMARKED = b"\0" * _MARK
_CONTROLS = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f]")


def exif_texts(source: Image.Image | bytes) -> dict[str, str]:
    """The texts of the tags that programs use, by the name of the tag, and ComfyUI's by "prompt" and "workflow".

    `source` is an image, or the content of EXIF. Damaged EXIF has no texts.
    """
    found: dict[str, str] = {}
    for tags in _parts(source):
        for tag, name in _TAGS.items():
            text = _text_of(tags.get(tag))
            if label := _LABELLED.match(text):
                found.setdefault(label[1].lower(), text[label.end() :])
            elif text:
                found[name] = text
    return found


def _parts(source: Image.Image | bytes) -> list[Mapping[int, Any]]:
    from PIL import Image

    parts: list[Mapping[int, Any]] = []
    # Pillow's readers raise errors of any type for damaged tags.
    with suppress(Exception):
        if isinstance(source, bytes):
            exif = Image.Exif()
            exif.load(source)
        else:
            exif = source.getexif()
        parts.append(dict(exif))
        parts.append(exif.get_ifd(_EXIF_IFD))
    return parts


def _text_of(value: object) -> str:
    if isinstance(value, tuple) and all(isinstance(one, int) and 0 <= one < 256 for one in value):
        value = bytes(value)
    if isinstance(value, bytes):
        return decode_comment(value)
    if isinstance(value, str):
        # Pillow reads text tags as Latin-1. Programs write UTF-8 there.
        with suppress(UnicodeError):
            value = value.encode("latin-1").decode("utf-8")
        return _trimmed(value)
    return ""


def decode_comment(raw: bytes) -> str:
    """The text of EXIF's `UserComment`, which begins with eight bytes that name an encoding.

    The mark "UNICODE" does not give the byte order, and some programs write it before UTF-8. Some write UTF-8 after the
    mark "ASCII", and some write no mark.
    """
    mark, text = raw[:_MARK], raw[_MARK:]
    if mark == b"UNICODE\0":
        decoded = _wide(text)
    elif mark in (b"ASCII\0\0\0", _UNMARKED):
        decoded = _guessed(text)
    elif mark == b"JIS\0\0\0\0\0":
        decoded = text.decode("iso2022_jp", "replace")
    else:
        decoded = _guessed(raw)
    return _trimmed(decoded)


def _trimmed(text: str) -> str:
    """Cameras fill a text up with zeros or spaces at its end. Spaces at its start are the prompt's."""
    return text.lstrip("\0").rstrip("\0 ")


def _guessed(text: bytes) -> str:
    if text.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)) or text.rstrip(b"\0").count(0):
        return _wide(text)
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _wide(text: bytes) -> str:
    """UTF-16 of either order, or UTF-8 where the mark is wrong."""
    for mark, name in ((codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF16_LE, "utf-16-le")):
        if text.startswith(mark):
            return text[2:].decode(name, "replace")
    if 0 not in text:
        with suppress(UnicodeDecodeError):
            decoded = text.decode("utf-8-sig")
            if not _CONTROLS.search(decoded):
                return decoded
    text = text[: len(text) // 2 * 2]
    return text.decode("utf-16-le" if _is_upper(text[1::2], text[::2]) else "utf-16-be", "replace")


def _is_upper(one: bytes, other: bytes) -> bool:
    """Whether `one` has the upper bytes of characters: more zeros, as in ASCII, else fewer different values."""
    if one.count(0) != other.count(0):
        return one.count(0) > other.count(0)
    return len(set(one)) < len(set(other))
