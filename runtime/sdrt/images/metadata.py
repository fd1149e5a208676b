"""How an image was made: the text that A1111's web UI reads, and files that hold it.

::

    a castle,                                   the prompt, as many lines as it has
    at dawn
    Negative prompt: blurry                     left out when empty
    Steps: 20, Sampler: Euler a, Seed: 1, …     one line; a value with a comma or colon is JSON

PNG carries it as the text chunk `parameters`; JPEG and WebP as EXIF `UserComment`, in UTF-16.

`Parameters.parse` is the inverse of `str(parameters)`. `sdrt.request.labels` makes the settings' labels and texts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.common.messages import wrong_value
from sdrt.images.decoding import Subject, opened

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ImageMetadata",
    "Parameters",
    "read_metadata",
    "read_parameters",
    "save_options",
]

_NEGATIVE = "Negative prompt:"
_FIELD = re.compile(r'\s*([A-Za-z][\w /-]*):\s*("(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)')
_FEWEST_FIELDS = 3  # fewer, and the last line belongs to the prompt
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_CHARSETS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii", b"\0" * 8: "utf-8"}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How one image was made. `str(parameters)` is the text, and `Parameters.parse` reads it back.

    `settings` keeps the order of the line (`Steps`, `Sampler`, `CFG scale`, …) and every value as text.

    In this grammar, no line of the prompt can begin with "Negative prompt:".
    """

    prompt: str = ""
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [self.prompt] if self.prompt else []
        if self.negative_prompt:
            lines.append(f"{_NEGATIVE} {self.negative_prompt}")
        if self.settings:
            lines.append(", ".join(f"{name}: {_quote(value)}" for name, value in self.settings.items()))
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str) -> Parameters:
        """Read the text back. A text without a line of settings is all prompt."""
        *lines, last = text.rstrip("\n").split("\n")
        settings = _parse_settings(last)
        if not settings:
            lines.append(last)
        start = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
        negative = "\n".join(lines[start:]).removeprefix(_NEGATIVE).removeprefix(" ")
        return cls(prompt="\n".join(lines[:start]), negative_prompt=negative, settings=settings)


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]|^\s|\s$', value) else value


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except json.JSONDecodeError:
        return value


def _parse_settings(line: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    position = 0
    while match := _FIELD.match(line, position):
        settings[match[1]] = _unquote(match[2])
        position = match.end()
    return settings if len(settings) >= _FEWEST_FIELDS else {}


def save_options(image_format: str, text: str) -> dict[str, Any]:
    """Options for Pillow's `Image.save` that put `text` into a "PNG", "JPEG" or "WEBP" file."""
    if image_format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("parameters", text)
        return {"pnginfo": info}
    from PIL.Image import Exif

    exif = Exif()
    exif[_EXIF_IFD] = {_USER_COMMENT: b"UNICODE\0" + text.encode("utf-16-be")}
    return {"exif": exif.tobytes()}


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """The metadata of an image file. `text` is empty if the file does not say how it was made."""

    format: str
    """Pillow's name of the format: "PNG", "JPEG", "WEBP", …"""
    size: tuple[int, int]
    """Width and height, in pixels."""
    text: str
    """How the image was made, as the text in the file."""
    parameters: Parameters
    """The same text, parsed."""

    @property
    def prompt(self) -> str:
        """What the image should show. Empty if the file does not say."""
        return self.parameters.prompt

    @property
    def negative_prompt(self) -> str:
        """What the image should not show."""
        return self.parameters.negative_prompt

    @property
    def settings(self) -> Mapping[str, str]:
        """A1111's labels and their values as texts, such as {"Steps": "20", "Sampler": "Euler a"}."""
        return self.parameters.settings


def read_metadata(path: str | os.PathLike[str]) -> ImageMetadata:
    """Read how the image in a file was made, by sdrt or by another program that writes A1111's text.

    An image without such a text has empty prompts and no settings. The pixels are not decoded.

    Raises:
        RequestError: the file does not exist, or is not an image.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise wrong_value("path", path, "the name of an image file")
    about, found = read_parameters(Path(path))
    text = found or ""
    return ImageMetadata(
        format=about["format"],
        size=(about["width"], about["height"]),
        text=text,
        parameters=Parameters.parse(text),
    )


def read_parameters(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read an image file's `format`, `width` and `height` into a dict, and its parameters text, or None without one.

    Raises `RequestError` if the file is not an image. The pixels are not decoded.
    """
    with opened(path, Subject(name=str(path), path=path), decodes=False) as image:
        about = {"format": image.format, "width": image.width, "height": image.height}
        text = image.info.get("parameters") or _user_comment(_exif(image))
    return about, text if isinstance(text, str) else None


def _exif(image: Image.Image) -> Mapping[int, Any]:
    # For a PNG, Pillow would decode the image to look for EXIF behind it.
    return {} if image.format == "PNG" else image.getexif().get_ifd(_EXIF_IFD)


def _user_comment(exif: Mapping[int, Any]) -> str | None:
    raw = exif.get(_USER_COMMENT)
    if not isinstance(raw, bytes) or raw[:8] not in _CHARSETS:
        return None
    return raw[8:].decode(_CHARSETS[raw[:8]], errors="replace").rstrip("\0 ") or None
