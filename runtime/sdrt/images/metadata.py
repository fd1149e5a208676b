"""Files that say how an image was made.

PNG carries the text of `sdrt.images.parameters` as the text chunk `parameters`; JPEG and WebP as EXIF `UserComment`, in
UTF-16.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sdrt.common.messages import wrong_value
from sdrt.images.decoding import MOST_BYTES, Source, Subject, errors_are_about, is_source, open_file
from sdrt.images.parameters import Parameters
from sdrt.images.places.file_texts import TEXT, hidden_text, no_metadata, read_texts
from sdrt.images.programs.made import Made
from sdrt.images.programs.table import (
    GRAPHS,
    PROGRAMS,
    a1111_text,
    program_of,
    recognised,
    unpacked,
)

__all__ = [
    "ImageMetadata",
    "Parameters",
    "read_metadata",
    "read_parameters",
    "save_options",
]

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_WITH_HIDDEN_TEXTS = ("PNG", "WEBP")


def save_options(image_format: str, text: str) -> dict[str, Any]:
    """Options for Pillow's `Image.save` that put `text` into a "PNG", "JPEG" or "WEBP" file."""
    if image_format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        # Other programs write UTF-8 where PNG has Latin-1. A text that says UTF-8 cannot be taken for the other.
        (info.add_text if text.isascii() else info.add_itxt)("parameters", text)
        return {"pnginfo": info}
    from PIL.Image import Exif

    exif = Exif()
    exif[_EXIF_IFD] = {_USER_COMMENT: b"UNICODE\0" + text.encode("utf-16-be")}
    return {"exif": exif.tobytes()}


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """The metadata of an image or a text file. `text` is empty if the file does not say how an image was made."""

    format: str
    """Pillow's name of the format: "PNG", "JPEG", "WEBP", …; or "TEXT" for a text file."""
    size: tuple[int, int]
    """Width and height, in pixels; (0, 0) for a text file."""
    text: str
    """How the image was made, as the text in the file."""
    parameters: Parameters
    """The same text, parsed. Settings of other programs have A1111's labels where A1111 has them."""
    program: str = ""
    """The program that made the image, such as "sdrt" or "ComfyUI". Empty if the file does not say."""

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


def read_metadata(path: str | os.PathLike[str] | bytes | BinaryIO) -> ImageMetadata:
    """Read how an image was made, by sdrt or by another program.

    The form is A1111's, or that of ComfyUI, InvokeAI, NovelAI, SwarmUI, Fooocus, Easy Diffusion, Draw Things or
    Civitai. It may be in text chunks, in EXIF, in XMP, or in the lowest bits of the pixels, which are decoded only if
    there is nothing else. A text file with such a text is read too.

    An image without such a text has empty prompts and no settings.

    Args:
        path: a file, by its name, its content, or open.

    Raises:
        RequestError: the file does not exist, is neither an image nor such a text, or has too much text.
    """
    source, subject = _checked(path)
    found = read_texts(source, subject)
    made = _made(unpacked(found.texts), found.size)
    if made is None and found.format in _WITH_HIDDEN_TEXTS:
        made = _made(unpacked({"parameters": hidden_text(source, subject)}), found.size)
    if found.format == TEXT and (made is None or not made.settings):
        raise no_metadata(found.texts, subject)
    text = a1111_text(found.texts)
    return ImageMetadata(
        format=found.format,
        size=found.size,
        text=made.text if made else text,
        parameters=_parameters(made) if made else Parameters.parse(text),
        program=made.program if made else "",
    )


def _checked(path: object) -> tuple[Source, Subject]:
    """The file to read, and what messages call it. A file that can be read once is read now."""
    if isinstance(path, (str, os.PathLike)):
        subject = Subject(name=str(path), path=Path(path))
        with errors_are_about(subject), open_file(Path(path), subject) as file:
            return (file.getvalue() if isinstance(file, io.BytesIO) else Path(path)), subject
    if not is_source(path):
        raise wrong_value("path", path, "the name of an image file, its content, or an open file")
    content = path if isinstance(path, (bytes, bytearray, memoryview)) else path.read(MOST_BYTES)
    return content, Subject(name=f"the file ({len(content)} bytes)", argument="path")


def _made(texts: Mapping[str, str], size: tuple[int, int]) -> Made | None:
    """What the texts of a file say, or None if they do not say how an image was made."""
    if made := recognised(PROGRAMS, texts, size):
        return made
    text = a1111_text(texts)
    parsed = Parameters.parse(text)
    if not parsed.settings:
        return recognised(GRAPHS, texts, size)
    return Made(
        program=program_of(parsed.settings, texts),
        text=text,
        prompt=parsed.prompt,
        negative_prompt=parsed.negative_prompt,
        settings=parsed.settings,
    )


def _parameters(made: Made) -> Parameters:
    return Parameters(prompt=made.prompt, negative_prompt=made.negative_prompt, settings=dict(made.settings))


def read_parameters(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read an image file's `format`, `width` and `height` into a dict, and its parameters text, or None without one.

    Raises `RequestError` as `read_metadata` does.
    """
    found = read_metadata(path)
    about = {"format": found.format, "width": found.size[0], "height": found.size[1]}
    return about, found.text or None
