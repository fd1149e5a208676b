"""What makes a control image of the image that the user gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sdrt.images.canny import canny

__all__ = ["preprocessed"]

Image8 = NDArray[np.uint8]


def preprocessed(image: Image8, name: str, **options: float) -> Image8:
    """The control image [H, W, 3] that the preprocessor `name` makes of an image. It has `options` of its own."""
    return image if name == "none" else _PREPROCESSORS[name](image, **options)


def _canny(image: Image8, *, low: float, high: float) -> Image8:
    return np.repeat(canny(image, low, high)[..., np.newaxis], 3, axis=2)


_PREPROCESSORS: Mapping[str, Callable[..., Image8]] = {"canny": _canny}
