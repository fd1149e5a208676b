"""Images that users give, as files, PIL images or arrays, read as 8-bit RGB."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, refused
from sdrt.errors import RequestError
from sdrt.images.decoding import Source, Subject, is_source, opened

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["checked_count", "read_images", "read_masks", "resized"]

Image8 = NDArray[np.uint8]


def read_images(
    name: str, value: object, *, ground: tuple[int, int, int] = (255, 255, 255), gray: bool = False
) -> tuple[Image8, ...]:
    """Read one or several images [H, W, 3] of the same size. Messages call them `name`.

    `value` is a path, the bytes of a file, an open file, a PIL image of any mode, an array [H, W, 3] or [N, H, W, 3] in
    8 bits or in 0 to 1, or a list of them. Transparent pixels get the colour `ground`. Photographs are rotated as
    their EXIF says. `decoding.READABLE` has the formats of files.

    Raises:
        RequestError: a value is not an image, is damaged, has several frames or too many pixels, or the sizes differ.
    """
    if _were_read(value, dimensions=3):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 4:
        value = list(value)
    given = value if isinstance(value, (list, tuple)) else [value]
    if not given:
        raise refused(name, "is an empty list", "one or several images")
    reader = _Reader(
        name=name,
        ground=ground,
        mode="L" if gray else "RGB",
        subject=Subject(name=name, argument=name),
    )
    images = tuple(reader.read(one) for one in given)
    sizes = sorted({image.shape[1::-1] for image in images})
    if len(sizes) > 1:
        shown = " and ".join(f"{width}x{height}" for width, height in sizes[:3])
        raise refused(name, f"has images of {shown} pixels", "images of the same size")
    return _sealed(images)


def _sealed(images: tuple[Image8, ...]) -> tuple[Image8, ...]:
    """The same arrays, read-only, so that they need not be copied or read again."""
    for image in images:
        image.setflags(write=False)
    return images


def _were_read(value: object, *, dimensions: int) -> TypeGuard[tuple[Image8, ...]]:
    return isinstance(value, tuple) and all(
        isinstance(one, np.ndarray)
        and one.dtype == np.uint8
        and one.ndim == dimensions
        and not one.flags.writeable
        for one in value
    )


def read_masks(name: str, value: object) -> tuple[Image8, ...]:
    """Read one or several masks [H, W] of the same size. White pixels are repainted, transparent ones count as black.

    `value` is what `read_images` takes, or an array [H, W].

    Raises:
        RequestError: as in `read_images`, or a mask has no white pixel.
    """
    if _were_read(value, dimensions=2):
        return value
    images = read_images(name, value, ground=(0, 0, 0), gray=True)
    masks = _sealed(tuple(image[..., 0].copy() for image in images))
    if not all((mask >= 128).any() for mask in masks):
        raise refused(name, "has no white pixel, so nothing would change", "white where to repaint")
    return masks


def resized(image: Image8, height: int, width: int) -> Image8:
    """An image or mask, scaled to [height, width] with Lanczos' filter as in diffusers."""
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    scaled = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(scaled)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads images for the argument `name`. Messages are about `subject`."""

    name: str
    ground: tuple[int, int, int]
    mode: str
    subject: Subject

    def read(self, value: object) -> Image8:
        """Read one image [H, W, 3]. Grey images have equal channels."""
        from PIL import Image

        if isinstance(value, (str, os.PathLike)):
            return self._from_source(Path(value))
        if is_source(value):
            return self._from_source(value)
        if isinstance(value, Image.Image):
            return self._from_pil(value)
        if isinstance(value, np.ndarray):
            return self._from_array(value)
        raise self._refused(
            f"is {brief(value)}", "a path, the bytes of a file, an open file, a PIL image or an array"
        )

    def _from_source(self, source: Source) -> Image8:
        reader = replace(self, subject=_subject(self.name, source))
        with opened(source, reader.subject) as image:
            return reader._from_pil(image)

    def _from_pil(self, image: Image.Image) -> Image8:
        from PIL import Image, ImageOps

        # The frames of a phone's MPO are one image for each eye.
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
            raise self._refused(f"has {frames} frames", "an image with one frame")
        try:
            image = ImageOps.exif_transpose(image)
        except OSError as error:
            raise self.subject.unreadable(f"is damaged: {brief(str(error))}") from error
        if image.mode.startswith("I"):
            return self._from_array(np.asarray(image).astype(np.float32) / 65535)
        if image.mode == "F":
            return self._from_array(np.asarray(image))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            below = Image.new("RGBA", image.size, (*self.ground, 255))
            image = Image.alpha_composite(below, image)
        pixels: Image8 = np.asarray(image.convert(self.mode).convert("RGB"))
        return pixels

    def _from_array(self, array: NDArray[Any]) -> Image8:
        if array.ndim == 2:
            array = array[..., np.newaxis].repeat(3, 2)
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise self._refused(f"is an array of shape {array.shape}", "(height, width, 3)")
        if array.dtype == np.bool_:
            array = array.astype(np.uint8) * 255
        if array.dtype == np.uint8:
            return np.array(array, dtype=np.uint8)
        if array.dtype.kind != "f":
            raise self._refused(f"is an array of {array.dtype}", "uint8, or floats from 0 to 1")
        # Tolerate rounding errors.
        if not (np.isfinite(array).all() and array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
            raise self._refused("is an array with numbers outside of 0 to 1", "0 to 1, or uint8")
        levels: Image8 = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
        return levels

    def _refused(self, problem: str, fits: str) -> RequestError:
        return self.subject.refused(problem, fits)


def _subject(name: str, source: Source) -> Subject:
    """What messages about an image from `source` call it."""
    if isinstance(source, Path):
        return Subject(name=f"{name} {brief(str(source), 200)}", argument=name, path=source)
    content = f"{len(source)} bytes" if isinstance(source, (bytes, bytearray, memoryview)) else "an open file"
    return Subject(name=f"{name} ({content})", argument=name)


def checked_count(name: str, images: Sequence[Image8], prompts: int) -> tuple[Image8, ...]:
    """One image for each prompt. Raises `RequestError` unless there is one image, or one for each prompt."""
    if len(images) not in (1, prompts):
        raise RequestError.advised(
            f"{name} has {len(images)} images for {prompts} prompts",
            "give one for each, or one for all",
            argument=name,
        )
    return tuple(images) * (prompts if len(images) == 1 else 1)
