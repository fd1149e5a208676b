"""Edges of an image (Canny 1986), pixel by pixel those of OpenCV's `Canny`, with which ControlNets were trained.

OpenCV takes 150 MB, and nothing else here needs it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["canny"]

Image8 = NDArray[np.uint8]
Levels = NDArray[np.int16]
Mask = NDArray[np.bool_]
# The tangent of 22.5 degrees, in units of 2^-15.
_TANGENT = 13573


def canny(image: Image8, low: float, high: float) -> Image8:
    """White edges [H, W] on black of an image [H, W, 3]. Each pixel counts by the channel that changes most there.

    An edge begins where the image changes by more than `high`, and goes on where it changes by more than `low`. Changes
    are sums of the absolute values of Sobel's derivatives.
    """
    across, down = _derivatives(image)
    change = np.abs(across) + np.abs(down)
    most = change.argmax(-1)[..., np.newaxis]
    across, down, change = (np.take_along_axis(one, most, -1)[..., 0] for one in (across, down, change))
    ridge = _is_ridge(across, down, change)
    low, high = sorted((math.floor(low), math.floor(high)))
    edges = _connected(ridge & (change > low), ridge & (change > high))
    shown: Image8 = np.where(edges, np.uint8(255), np.uint8(0))
    return shown


def _derivatives(image: Image8) -> tuple[Levels, Levels]:
    """Sobel's derivatives from left to right and from top to bottom, [H, W, 3]. The edge is repeated around it."""
    padded = np.pad(image.astype(np.int16), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]


def _is_ridge(across: Levels, down: Levels, change: Levels) -> Mask:
    """Where the image changes more than at both neighbours in the direction of the change, of which there are four."""
    around = np.pad(change, 1)

    def at(row: int, column: int) -> Levels:
        return around[1 + row : 1 + row + len(change), 1 + column : 1 + column + change.shape[1]]

    wide, tall = np.abs(across).astype(np.int32), np.abs(down).astype(np.int32) << 15
    flat, steep = tall < wide * _TANGENT, tall > wide * _TANGENT + (wide << 16)
    falls = (across ^ down) < 0
    sideways = (change > at(0, -1)) & (change >= at(0, 1))
    upright = (change > at(-1, 0)) & (change >= at(1, 0))
    rising = (change > at(-1, -1)) & (change > at(1, 1))
    falling = (change > at(-1, 1)) & (change > at(1, -1))
    found: Mask = np.select([flat, steep, falls], [sideways, upright, falling], rising)
    return found


def _connected(weak: Mask, strong: Mask) -> Mask:
    """The weak pixels that touch strong ones, directly or through others."""
    # A border of False, so that every pixel has eight neighbours.
    left, found = np.pad(weak, 1).ravel(), np.pad(strong, 1).ravel()
    width = weak.shape[1] + 2
    steps = np.array([row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column])
    front = np.flatnonzero(found)
    left[front] = False
    while len(front):
        near = (front[:, np.newaxis] + steps).ravel()
        front = np.unique(near[left[near]])
        left[front], found[front] = False, True
    return found.reshape(-1, width)[1:-1, 1:-1]
