"""Images and masks as A1111 prepares them: which part of a mask counts, the resize modes, the masked content."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdrt.errors import RequestError
from sdrt.images.decoding import Subject, opened
from sdrt.images.reading import read_images
from sdrt.serve.errors import ServeError
from sdrt.serve.image_sizes import check_size

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["as_png", "errors_of", "fitted", "is_resized", "picture", "prepared"]

_STRETCH, _CROP, _FILL, _LATENT = range(4)
_KEEP, _AROUND = 1, 0
_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""A1111's blurs of what is around a mask, in pixels, and how often each is laid over the ones before."""
_OPAQUE = 128
_MASK = "mask"


def picture(data: bytes, field: str, most_pixels: int) -> Image.Image:
    """The image in a file, upright, in RGB on white.

    Raises:
        ServeError: it is none, or has more than `most_pixels`.
    """
    from PIL import Image

    with errors_of(field):
        check_size(data, field, most_pixels)
        return Image.fromarray(read_images(field, data)[0])


def _mask(data: bytes, most_pixels: int, *, invert: bool) -> Image.Image:
    """Where to repaint, white: where the image is opaque if it has transparent parts, else where it is light."""
    from PIL import Image, ImageOps

    with errors_of(_MASK):
        check_size(data, _MASK, most_pixels)
        mask = _opacity(data) or Image.fromarray(
            read_images(_MASK, data, ground=(0, 0, 0), gray=True)[0][..., 0]
        )
    return ImageOps.invert(mask) if invert else mask


def _opacity(data: bytes) -> Image.Image | None:
    """Where an image is opaque. None if it is everywhere."""
    from PIL import ImageOps

    with opened(data, Subject(name=_MASK, argument=_MASK)) as image:
        if not image.has_transparency_data:
            return None
        alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    if alpha.getextrema()[0] == 255:
        return None
    return alpha.point(lambda level: 255 if level > _OPAQUE else 0)


@contextmanager
def errors_of(field: str) -> Iterator[None]:
    """Within this block, errors about an image are the server's answer."""
    try:
        yield
    except RequestError as error:
        raise ServeError(400, str(error), field=field) from None


def as_png(image: Image.Image) -> bytes:
    """The image as a file for a task."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def fitted(image: Image.Image, mode: int, width: int, height: int) -> Image.Image:
    """The image in another size, by A1111's resize modes: 0 stretches, 1 crops, 2 repeats the edges."""
    from PIL import Image

    if image.size == (width, height):
        return image
    if mode == _STRETCH:
        return image.resize((width, height), Image.Resampling.LANCZOS)
    choose = max if mode == _CROP else min
    scale = choose(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    scaled = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    if mode == _CROP:
        return scaled.crop((-left, -top, width - left, height - top))
    return _with_edges(scaled, left, top, width, height)


def _with_edges(image: Image.Image, left: int, top: int, width: int, height: int) -> Image.Image:
    """The image in a larger one, whose other pixels are those of its edge."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image)
    around = ((top, height - top - image.height), (left, width - left - image.width))
    rest = ((0, 0),) * (pixels.ndim - 2)
    return Image.fromarray(np.pad(pixels, (*around, *rest), mode="edge"), image.mode)


def is_resized(mode: int) -> bool:
    """Whether a resize mode changes what the pipeline would do itself, which is to stretch."""
    return mode in (_CROP, _FILL)


def prepared(
    image: bytes,
    mask: bytes | None,
    *,
    resize_mode: int,
    size: tuple[int, int] | None,
    invert: bool,
    content: int,
    most_pixels: int,
) -> tuple[bytes, bytes | None]:
    """The image and its mask as the pipeline takes them. It takes time, so that it belongs in a thread.

    Args:
        image: the file of the image.
        mask: the file of its mask.
        resize_mode: one of A1111's.
        size: the width and height to which both are brought. None if only the mask's surroundings are.
        invert: whether the mask is black where to repaint.
        content: A1111's `inpainting_fill`.
        most_pixels: the most pixels of each.

    Raises:
        ServeError: a file is no image, or the server does not have that mode or content.
    """
    _refuse(resize_mode, content if mask is not None else _KEEP)
    white = None if mask is None else _mask(mask, most_pixels, invert=invert)
    resizes = size is not None and is_resized(resize_mode)
    fills = white is not None and content == _AROUND
    if resizes or fills:
        own = picture(image, "init_images", most_pixels)
        if resizes and size is not None:
            own = fitted(own, resize_mode, *size)
            white = None if white is None else fitted(white, resize_mode, *size)
        image = as_png(_filled(own, white) if fills and white is not None else own)
    return image, None if white is None else as_png(white)


def _refuse(resize_mode: int, content: int) -> None:
    if resize_mode == _LATENT:
        raise ServeError(
            400,
            "resize_mode is 3, which enlarges latents: this server has 0, 1 and 2",
            field="resize_mode",
            code="unsupported",
        )
    if content not in (_AROUND, _KEEP):
        raise ServeError(
            400,
            f"inpainting_fill is {content}, which fills latents: this server has 0 and 1",
            field="inpainting_fill",
            code="unsupported",
        )


def _filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image with the colours around the mask in it, blurred, the finest where they reach."""
    from PIL import Image, ImageFilter, ImageOps

    mask = mask if mask.size == image.size else mask.resize(image.size)
    seen = Image.new("RGBa", image.size)
    seen.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    made = Image.new("RGBA", image.size)
    for radius, times in _BLURS:
        layer = seen.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            made.alpha_composite(layer)
    return made.convert("RGB")
