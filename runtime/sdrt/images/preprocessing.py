"""What makes a control image of the image that the user gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.extras import install_command
from sdrt.errors import RequestError

__all__ = ["preprocessed"]

Image8 = NDArray[np.uint8]


def preprocessed(image: Image8, name: str, **options: float) -> Image8:
    """The control image [H, W, 3] that the preprocessor `name` makes of an image.

    Raises:
        RequestError: it needs a package that is not installed.
    """
    return image if name == "none" else _PREPROCESSORS[name](image, **options)


def _canny(image: Image8, *, low: float, high: float) -> Image8:
    """White edges on black (Canny 1986). A colour image has the edges of the channel that changes most.

    An edge begins where the image changes by more than `high`, and goes on where it changes by more than `low`.
    """
    edges: Image8 = _opencv("canny").Canny(np.ascontiguousarray(image), low, high)
    return np.repeat(edges[..., np.newaxis], 3, axis=2)


def _opencv(name: str) -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise RequestError.advised(
            f"control_preprocessor {name!r} needs OpenCV, which is not installed; run",
            install_command("control"),
            argument="control_preprocessor",
        ) from error
    return cv2


_PREPROCESSORS: Mapping[str, Callable[..., Image8]] = {"canny": _canny}
