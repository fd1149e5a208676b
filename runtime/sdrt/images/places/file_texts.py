"""All texts of a file that may say how an image was made, by the names of their places."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from sdrt.errors import RequestError
from sdrt.images.decoding import (
    EXPECTED,
    Source,
    Subject,
    described,
    errors_are_about,
    format_of_content,
    open_file,
    opened,
)
from sdrt.images.places.exif import exif_texts
from sdrt.images.places.limits import MOST_TEXT, TooMuchTextError
from sdrt.images.places.png import read_png
from sdrt.images.places.xmp import xmp_texts

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EXPECTED_TEXT", "TEXT", "FileTexts", "hidden_text", "no_metadata", "read_texts"]

TEXT = "TEXT"
"""The format of a text file."""
EXPECTED_TEXT = f"{EXPECTED}, or a text with its settings"
_XMP_KEYWORD = "XML:com.adobe.xmp"
_LONGEST_TEXT_FILE = 4 << 20
_HEAD = 1024
# Control characters that no text has.
_BINARY = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(kw_only=True)
class FileTexts:
    """The texts of a file. `format` is Pillow's name, or `TEXT`. `size` is (0, 0) for a text file."""

    format: str
    size: tuple[int, int]
    texts: dict[str, str] = field(default_factory=dict)


def read_texts(source: Source, subject: Subject) -> FileTexts:
    """Read the texts of an image, without decoding its pixels, or of a text file.

    Raises:
        RequestError: the file cannot be read, is neither, is damaged, or has too much text.
    """
    with ExitStack() as stack:
        with errors_are_about(subject):
            file = stack.enter_context(open_file(source, subject))
            file.seek(0)
            head = file.read(_HEAD)
            file.seek(0)
        try:
            return _texts(file, head, subject)
        except TooMuchTextError:
            raise _too_much(subject) from None


def hidden_text(source: Source, subject: Subject) -> str:
    """The text in the pixels of an image, which is decoded for it, or an empty text. Very large images have none.

    Raises:
        RequestError: the image is damaged, or the text too long.
    """
    from sdrt.images.places.stealth import MOST_PIXELS, stealth_text

    with opened(source, subject, decodes=False) as image:
        if image.width * image.height > MOST_PIXELS or getattr(image, "n_frames", 1) > 1:
            return ""
        with errors_are_about(subject):
            try:
                image.load()
                return stealth_text(image)
            except TooMuchTextError:
                raise _too_much(subject) from None


def _too_much(subject: Subject) -> RequestError:
    return subject.refused(f"has more than {MOST_TEXT >> 20} MB of text", "less text")


def _texts(file: BinaryIO, head: bytes, subject: Subject) -> FileTexts:
    name = format_of_content(head)
    if name is None:
        return _text_file(file, head, subject)
    if name == "PNG":
        return _of_png(file, subject)
    with opened(file, subject, decodes=False) as image:
        return FileTexts(format=name, size=image.size, texts=_of_image(image))


def _of_png(file: BinaryIO, subject: Subject) -> FileTexts:
    found = read_png(file)
    if found is None:
        raise subject.unreadable("is damaged: it begins like PNG, but the rest is not PNG")
    texts = exif_texts(found.exif) | found.texts
    return FileTexts(format="PNG", size=found.size, texts=xmp_texts(texts.pop(_XMP_KEYWORD, "")) | texts)


def _of_image(image: Image.Image) -> dict[str, str]:
    texts = {}
    for name in ("xmp", "comment"):
        value = image.info.get(name)
        texts[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
    texts |= xmp_texts(texts.pop("xmp"))
    return {name: text for name, text in (texts | exif_texts(image)).items() if text}


def _text_file(file: BinaryIO, head: bytes, subject: Subject) -> FileTexts:
    """A text file, which has the same text as an image, as A1111 copies it, or the JSON of another program."""
    content = file.read(_LONGEST_TEXT_FILE + 1)
    text = _decoded(content) if len(content) <= _LONGEST_TEXT_FILE else None
    if text is None or not text.strip():
        raise _unknown(head, subject)
    return FileTexts(format=TEXT, size=(0, 0), texts={"parameters": text})


def _decoded(content: bytes) -> str | None:
    wide = content.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if _BINARY.search(text) else text


def no_metadata(texts: Mapping[str, str], subject: Subject) -> RequestError:
    """The error for a text file that does not say how an image was made."""
    return _unknown(texts["parameters"][:_HEAD].encode("utf-8", "replace"), subject)


def _unknown(head: bytes, subject: Subject) -> RequestError:
    return subject.refused(f"is {described(head)}", EXPECTED_TEXT)
