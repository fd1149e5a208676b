"""OpenAI's masks: transparent where the image is repainted. Those of sdrt are white there."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from sdrt.errors import RequestError
from sdrt.images.decoding import Subject, errors_are_about, opened
from sdrt.serve.errors import ServeError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["mask_file"]

_FITS = "an image that is transparent where to repaint"


def mask_file(data: bytes, max_pixels: int) -> bytes:
    """A mask that is white where that of the file `data` is transparent, as a PNG file.

    Raises:
        ServeError: it is no image, too large, or transparent nowhere.
    """
    subject = Subject(name="mask", argument="mask")
    try:
        with opened(data, subject, decodes=False) as image:
            if image.width * image.height > max_pixels:
                fits = f"at most {max_pixels}"
                raise subject.refused(f"has {image.width}x{image.height} pixels", fits)
        with opened(data, subject) as image, errors_are_about(subject):
            return _png(_white_where_transparent(image, subject))
    except RequestError as error:
        raise ServeError(400, str(error), field="mask") from None


def _white_where_transparent(image: Image, subject: Subject) -> Image:
    from PIL import ImageChops, ImageOps

    if not image.has_transparency_data:
        raise subject.refused("has no transparency", _FITS)
    # Images are rotated as their EXIF says, so masks are.
    alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    mask = ImageChops.invert(alpha)
    if mask.point(lambda white: white >= 128 and 255).getbbox() is None:
        raise subject.refused("is transparent nowhere", _FITS)
    return mask


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
