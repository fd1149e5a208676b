"""Images that users give, as files, PIL images or arrays, read as 8-bit RGB."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, refused
from sdrt.errors import RequestError
from sdrt.images.decoding import Source, Subject, is_source, opened
from sdrt.images.given_arrays import as_array, is_array_like, separate

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["checked_count", "read_images", "read_masks", "resized"]

Image8 = NDArray[np.uint8]
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)


def read_images(
    name: str, value: object, *, ground: tuple[int, int, int] = (255, 255, 255), gray: bool = False
) -> tuple[Image8, ...]:
    """Read one or several images [H, W, 3] of the same size. Messages call them `name`.

    `value` is a path, the bytes of a file, an open file, a PIL image of any mode, an array [H, W, 3] or [N, H, W, 3] in
    8 bits or in 0 to 1, a tensor [3, H, W] or [N, 3, H, W] of torch, or a list of them. Transparent pixels get the
    colour `ground`. Photographs are rotated as their EXIF says. `decoding.READABLE` has the formats of files.

    Raises:
        RequestError: a value is not an image, is damaged, has several frames or too many pixels, or the sizes differ.
    """
    if _were_read(value, dimensions=3):
        return value
    given = [one for some in _listed(value) for one in _separated(name, some, gray)]
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


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else [value]


def _separated(name: str, value: object, gray: bool) -> Sequence[object]:
    """The images in `value`, which may be an array of several."""
    return separate(name, as_array(name, value), gray=gray) if is_array_like(value) else [value]


def _sealed(images: tuple[Image8, ...]) -> tuple[Image8, ...]:
    """The same arrays, read-only, so that they need not be copied or read again."""
    for image in images:
        image.setflags(write=False)
    return images


def _were_read(value: object, *, dimensions: int) -> TypeGuard[tuple[Image8, ...]]:
    return isinstance(value, tuple) and bool(value) and all(_was_read(one, dimensions) for one in value)


def _was_read(value: object, dimensions: int) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and (value.ndim, *value.shape[2:]) == ((2,) if dimensions == 2 else (3, 3))
        and not value.flags.writeable
    )


def read_masks(name: str, value: object, *, white: str = "white where to repaint") -> tuple[Image8, ...]:
    """Read one or several masks [H, W] of the same size. White pixels are repainted, transparent ones count as black.

    `value` is what `read_images` takes, or an array [H, W] or [N, H, W], also of whole numbers. A mask of zeros and
    ones is white where it is 1.

    `white` says in messages what white pixels mean.

    Raises:
        RequestError: as in `read_images`, or a mask has no white pixel.
    """
    if _were_read(value, dimensions=2):
        return value
    images = read_images(name, value, ground=(0, 0, 0), gray=True)
    masks = _sealed(tuple(image[..., 0].copy() for image in images))
    if not all((mask >= 128).any() for mask in masks):
        raise refused(name, "has no white pixel, so nothing would change", white)
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

        if isinstance(value, str) and _URL.match(value):
            raise self._url(value)
        if isinstance(value, str) and not value:
            # pathlib takes it for the current folder.
            raise self._refused("is ''", "the name of an image file")
        if isinstance(value, (str, os.PathLike)):
            return self._from_source(Path(value))
        if is_source(value):
            return self._from_source(value)
        if isinstance(value, Image.Image):
            return self._from_open(value)
        if isinstance(value, np.ndarray):
            return self._from_array(value)
        raise self._refused(
            f"is {brief(value)}", "a path, the bytes of a file, an open file, a PIL image or an array"
        )

    def _from_source(self, source: Source) -> Image8:
        reader = replace(self, subject=_subject(self.name, source))
        with opened(source, reader.subject) as image:
            return reader._from_pil(image)

    def _url(self, value: str) -> RequestError:
        return RequestError.advised(
            f"{self.name} is the URL {brief(value, 120)}, and sdrt downloads no images",
            "download it, and give the file or a PIL image",
            argument=self.name,
        )

    def _from_open(self, image: Image.Image) -> Image8:
        """Read an image that the caller opened, and may have closed or damaged."""
        try:
            return self._from_pil(image)
        except RequestError:
            raise
        except (AssertionError, AttributeError, SyntaxError, ValueError) as error:
            # Pillow raises these for an image whose file is closed, depending on its format.
            reason = brief(str(error)) if str(error) else "it is closed"
            raise self._refused(
                f"is a PIL image that cannot be read ({reason})",
                "one that is open; call its load() before its file is closed",
            ) from error

    def _from_pil(self, image: Image.Image) -> Image8:
        from PIL import Image, ImageOps

        if 0 in image.size:
            raise self._refused(f"has {image.width}x{image.height} pixels", "at least one")
        # The frames of a phone's MPO are one image for each eye.
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
            raise self._refused(f"has {frames} frames", "an image with one frame")
        try:
            image = ImageOps.exif_transpose(image)
        except OSError as error:
            raise self.subject.unreadable(f"is damaged: {brief(str(error))}") from error
        if image.mode.startswith("I"):
            return self._from_whole(np.asarray(image))
        if image.mode == "F":
            return self._from_array(np.asarray(image))
        if image.mode == "La":
            image = image.convert("LA")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            below = Image.new("RGBA", image.size, (*self.ground, 255))
            image = Image.alpha_composite(below, image)
        pixels: Image8 = np.asarray(image.convert(self.mode).convert("RGB"))
        return self._spread(pixels)

    def _from_whole(self, levels: NDArray[Any]) -> Image8:
        """Read an image of mode I, whose levels go up to 65535, or to 255 if Pillow converted it."""
        if levels.dtype == np.int32 and levels.max() <= 255:
            return self._spread(self._from_array(levels.clip(0).astype(np.uint8)))
        if self._is_mask and levels.max() <= 1:
            return self._from_array(levels > 0)
        return self._from_array(levels.astype(np.float32) / 65535)

    @property
    def _is_mask(self) -> bool:
        return self.mode == "L"

    def _spread(self, levels: Image8) -> Image8:
        """The levels. A mask of zeros and ones gets 255 in place of 1."""
        return levels * np.uint8(255) if self._is_mask and levels.max() == 1 else levels

    def _from_array(self, array: NDArray[Any]) -> Image8:
        if array.ndim == 2:
            array = array[..., np.newaxis].repeat(3, 2)
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise self._refused(f"is an array of shape {array.shape}", "(height, width, 3)")
        if array.dtype == np.bool_:
            array = array.astype(np.uint8) * 255
        if self._is_mask and array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255:
            array = array.astype(np.uint8)
        if array.dtype == np.uint8:
            return self._spread(np.array(array, dtype=np.uint8))
        if array.dtype.kind != "f":
            raise self._refused(f"is an array of {array.dtype}", "uint8, or floats from 0 to 1")
        # Tolerate rounding errors.
        if not (np.isfinite(array).all() and array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
            remedy = ", such as image / 2 + 0.5" if np.abs(array).max() <= 1 + 1e-3 else ""
            raise self._refused("is an array with numbers outside of 0 to 1", f"0 to 1{remedy}, or uint8")
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
