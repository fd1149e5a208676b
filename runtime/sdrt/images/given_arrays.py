"""Arrays and tensors that users give as images, in the layouts of NumPy and of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, refused

__all__ = ["as_array", "is_array_like", "is_images", "separate"]

_COLOURS = (1, 3)
_PROTOCOLS = ("__array__", "__array_interface__", "__dlpack__")


def is_array_like(value: object) -> bool:
    """Whether `value` is an array, or an object that NumPy can read as one, such as a tensor of torch."""
    from PIL import Image

    return not isinstance(value, Image.Image) and any(hasattr(value, name) for name in _PROTOCOLS)


def as_array(name: str, value: Any) -> NDArray[Any]:
    """The array or tensor `value` as NumPy's array. Messages call it `name`.

    Raises:
        RequestError: NumPy cannot read it, for example because it is in a GPU's memory or in bfloat16.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        reason = brief(" ".join(str(error).split()), 160)
        fits = "an array in the CPU's memory, as tensor.detach().float().cpu() makes it"
        raise refused(name, f"is a {type(value).__name__} that NumPy cannot read ({reason})", fits) from None


def is_images(array: NDArray[Any]) -> bool:
    """Whether an array of four dimensions holds images rather than latents: one or three channels, last or second."""
    second, last = array.shape[1], array.shape[3]
    return last == 3 or second in _COLOURS or (last == 1 and second != 4)


def separate(name: str, array: NDArray[Any], *, gray: bool) -> list[NDArray[Any]]:
    """The images [H, W] or [H, W, 3] in an array of one or several, whose channels are last or, as in torch, first.

    In diffusers, masks (`gray`) of three dimensions are several masks [N, H, W].

    Raises:
        RequestError: the array has another shape, or it can be read in two ways.
    """
    if array.ndim == 4 and 0 not in array.shape and is_images(array):
        last = array if array.shape[3] in _COLOURS else np.moveaxis(array, 1, 3)
        return [_without_one_channel(image) for image in last]
    if array.ndim == 3 and 0 not in array.shape:
        if array.shape[2] in _COLOURS:
            return [_without_one_channel(array)]
        if gray and array.shape[0] == 3 and (array != array[:1]).any():
            fits = f"({array.shape[1]}, {array.shape[2]}, 3) for one mask, or a list of three masks"
            raise refused(name, f"is an array of shape {array.shape}, which may be one mask or three", fits)
        if array.shape[0] in _COLOURS:
            return [_without_one_channel(np.moveaxis(array, 0, 2))]
        if gray:
            return list(array)
    return [array]


def _without_one_channel(image: NDArray[Any]) -> NDArray[Any]:
    """An image [H, W] instead of [H, W, 1]."""
    return image[..., 0] if image.shape[2] == 1 else image
