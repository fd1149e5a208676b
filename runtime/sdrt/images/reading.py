"""Pictures that users give: files, PIL pictures or arrays, to 8-bit RGB."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["checked_count", "read_masks", "read_pictures", "resized"]

Picture = NDArray[np.uint8]


def read_pictures(
    name: str, value: object, *, ground: tuple[int, int, int] = (255, 255, 255), gray: bool = False
) -> tuple[Picture, ...]:
    """One or several pictures [H, W, 3], of one size.

    Takes paths, PIL pictures of any mode, and arrays [H, W, 3] or [N, H, W, 3] of 8 bits or of 0 to 1. Transparent
    pixels become `ground`, white by default; a photograph is turned as its EXIF says.

    Raises:
        RequestError: it is no picture, is damaged, has several frames or too many pixels, or the sizes differ.
    """
    if _were_read(value, dimensions=3):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 4:
        value = list(value)
    given = value if isinstance(value, (list, tuple)) else [value]
    if not given:
        raise RequestError(f"{name} is an empty list: expected a picture, or several")
    reader = _Reader(name=name, ground=ground, mode="L" if gray else "RGB")
    pictures = tuple(reader.read(one) for one in given)
    sizes = sorted({picture.shape[1::-1] for picture in pictures})
    if len(sizes) > 1:
        shown = " and ".join(f"{width}x{height}" for width, height in sizes[:3])
        raise RequestError(f"{name} has pictures of {shown} pixels: expected one size")
    return _sealed(pictures)


def _sealed(pictures: tuple[Picture, ...]) -> tuple[Picture, ...]:
    """The same, not to be written to: so that they need not be copied, or read again."""
    for picture in pictures:
        picture.setflags(write=False)
    return pictures


def _were_read(value: object, *, dimensions: int) -> TypeGuard[tuple[Picture, ...]]:
    return isinstance(value, tuple) and all(
        isinstance(one, np.ndarray)
        and one.dtype == np.uint8
        and one.ndim == dimensions
        and not one.flags.writeable
        for one in value
    )


def read_masks(name: str, value: object) -> tuple[Picture, ...]:
    """One or several masks [H, W], of one size, white where a picture is to be made anew; transparent is black.

    Takes what `read_pictures` takes, and arrays [H, W].

    Raises:
        RequestError: as `read_pictures`, or a mask is black all over.
    """
    if _were_read(value, dimensions=2):
        return value
    pictures = read_pictures(name, value, ground=(0, 0, 0), gray=True)
    masks = _sealed(tuple(picture[..., 0].copy() for picture in pictures))
    if not all((mask >= 128).any() for mask in masks):
        raise RequestError(
            f"{name} has no white pixel, so that nothing would change: expected white where to repaint"
        )
    return masks


def resized(picture: Picture, height: int, width: int) -> Picture:
    """[height, width] and perhaps channels, by Lanczos' filter as in diffusers."""
    if picture.shape[:2] == (height, width):
        return picture
    from PIL import Image

    scaled = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(scaled)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads pictures that messages call `name`."""

    name: str
    ground: tuple[int, int, int]
    mode: str

    def read(self, value: object) -> Picture:
        """One picture [H, W, 3]; grey ones have equal channels."""
        from PIL import Image

        if isinstance(value, (str, os.PathLike)):
            return self._from_file(Path(value))
        if isinstance(value, Image.Image):
            return self._from_pil(self.name, value)
        if isinstance(value, np.ndarray):
            return _from_array(self.name, value)
        raise RequestError(f"{self.name} is {brief(value)}: expected a path, a PIL picture or an array")

    def _from_file(self, path: Path) -> Picture:
        from PIL import Image, UnidentifiedImageError

        shown = f"{self.name} {brief(str(path), 200)}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as picture:
                    return self._from_pil(shown, picture)
        except RequestError:
            raise
        except UnidentifiedImageError:
            raise RequestError(
                f"{shown} is no picture that Pillow knows: expected PNG, JPEG, WebP or the like"
            ) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise RequestError(
                f"{shown} has more pixels than a picture should: expected {Image.MAX_IMAGE_PIXELS} at most"
            ) from None
        except OSError as error:
            raise RequestError(f"{shown} cannot be read: {error.strerror or error}") from error
        except (SyntaxError, ValueError, EOFError, MemoryError) as error:
            # What Pillow's readers raise for content that is not what the header says.
            raise RequestError(f"{shown} is damaged: {brief(str(error))}") from error

    def _from_pil(self, shown: str, picture: Image.Image) -> Picture:
        from PIL import Image, ImageOps

        # A telephone's MPO holds the same picture twice, for two eyes.
        if (frames := getattr(picture, "n_frames", 1)) > 1 and picture.format != "MPO":
            raise RequestError(f"{shown} has {frames} frames: expected a picture with one")
        try:
            picture = ImageOps.exif_transpose(picture)
        except OSError as error:
            raise RequestError(f"{shown} is damaged: {brief(str(error))}") from error
        if picture.mode.startswith("I"):
            return _from_array(shown, np.asarray(picture).astype(np.float32) / 65535)
        if picture.mode == "F":
            return _from_array(shown, np.asarray(picture))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            below = Image.new("RGBA", picture.size, (*self.ground, 255))
            picture = Image.alpha_composite(below, picture)
        pixels: Picture = np.asarray(picture.convert(self.mode).convert("RGB"))
        return pixels


def _from_array(name: str, array: NDArray[Any]) -> Picture:
    if array.ndim == 2:
        array = array[..., np.newaxis].repeat(3, 2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise RequestError(f"{name} is an array of shape {array.shape}: expected (height, width, 3)")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype == np.uint8:
        return np.array(array, dtype=np.uint8)
    if array.dtype.kind != "f":
        raise RequestError(f"{name} is an array of {array.dtype}: expected uint8, or numbers from 0 to 1")
    # A rounding error beyond the ends is none of the user's.
    if not (np.isfinite(array).all() and array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
        raise RequestError(f"{name} is an array with numbers beyond 0 to 1: expected 0 to 1, or uint8")
    levels: Picture = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
    return levels


def checked_count(name: str, pictures: Sequence[Picture], prompts: int) -> tuple[Picture, ...]:
    """One for each prompt. Raises `RequestError` where there are neither one nor as many."""
    if len(pictures) not in (1, prompts):
        raise RequestError(
            f"{name} has {len(pictures)} pictures for {prompts} prompts: give one each, or one for all"
        )
    return tuple(pictures) * (prompts if len(pictures) == 1 else 1)
