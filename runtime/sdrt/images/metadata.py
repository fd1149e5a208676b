"""Files that say how an image was made.

PNG carries the text of `sdrt.images.parameters` as the text chunk `parameters`; JPEG and WebP as EXIF `UserComment`, in
UTF-16.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.common.messages import wrong_value
from sdrt.errors import RequestError
from sdrt.images.parameters import Parameters

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ImageMetadata",
    "Parameters",
    "read_metadata",
    "read_parameters",
    "save_options",
]

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_CHARSETS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii", b"\0" * 8: "utf-8"}


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
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow warns of a large size, although nothing is decoded, and of EXIF that ends early.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                about = {"format": image.format, "width": image.width, "height": image.height}
                text = image.info.get("parameters") or _user_comment(_exif(image))
    except UnidentifiedImageError:
        raise RequestError.expected(
            f"{path} is not an image", "a PNG, JPEG or WebP file, or a model folder", path=path
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError.expected(
            f"{path} cannot be read as an image ({error})", "a PNG, JPEG or WebP file", path=path
        ) from error
    return about, text if isinstance(text, str) else None


def _exif(image: Image.Image) -> Mapping[int, Any]:
    # For a PNG, Pillow would decode the image to look for EXIF behind it.
    return {} if image.format == "PNG" else image.getexif().get_ifd(_EXIF_IFD)


def _user_comment(exif: Mapping[int, Any]) -> str | None:
    raw = exif.get(_USER_COMMENT)
    if not isinstance(raw, bytes) or raw[:8] not in _CHARSETS:
        return None
    return raw[8:].decode(_CHARSETS[raw[:8]], errors="replace").rstrip("\0 ") or None
