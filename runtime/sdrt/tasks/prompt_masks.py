"""Masks of image prompts: which part of an image sees one (IP-Adapter), at the size of each of the U-Net's levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["level_mask"]

Array = NDArray[np.float32]
# torch's, for bicubic interpolation.
_SHARPNESS = -0.75
_WHITE = 128


def level_mask(mask: NDArray[np.uint8], height: int, width: int) -> Array:
    """A mask as a cross-attention takes it: [1, height · width, 1], row by row.

    It is black or white before it is scaled, by bicubic interpolation as in diffusers, so that values at its edge may
    be below 0 or above 1. `height` and `width` are those of the level. diffusers guesses them from the mask's
    proportions, which puts pixels into wrong rows at some sizes, such as 1024x520.

    Args:
        mask: [H, W] of 8 bits, as large as the image in pixels.
        height, width: of the level.
    """
    binary = (mask >= _WHITE).astype(np.float32)
    rows, columns = _weights(mask.shape[0], height), _weights(mask.shape[1], width)
    scaled: Array = (rows @ binary @ columns.T).astype(np.float32)
    made: Array = scaled.reshape(1, height * width, 1)
    return made


def _weights(given: int, made: int) -> NDArray[np.float64]:
    """The weights [made, given] of a side's pixels. Each new pixel is made of four; those beyond the edge repeat it."""
    centres = (np.arange(made) + 0.5) * (given / made) - 0.5
    first = np.floor(centres).astype(np.int64)
    weights = np.zeros((made, given))
    for offset in (-1, 0, 1, 2):
        place = np.clip(first + offset, 0, given - 1)
        np.add.at(weights, (np.arange(made), place), _cubic(centres - first - offset))
    return weights


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution kernel (Keys 1981)."""
    x, a = np.abs(distance), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    made: NDArray[np.float64] = np.where(x <= 1, near, np.where(x < 2, far, 0))
    return made
