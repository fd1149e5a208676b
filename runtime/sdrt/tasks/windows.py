"""Overlapping windows over latents, which denoise a large image in the memory of a small one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

__all__ = ["Place", "Windows"]

Array = NDArray[np.float32]
# Index of [..., h, w].
Place = tuple[EllipsisType, slice, slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Windows of the same size that cover the latents, and their weights.

    In every step, the model's output at a place is the weighted mean over the windows that contain it (MultiDiffusion,
    Bar-Tal et al. 2023, arXiv:2302.08113). Weights fall towards the windows' borders, so that no border shows.

    Attributes:
        size: height and width of a window.
        places: rows and columns of each window.
        weight: weights [height, width] of the places in a window.
        total: the sums [h, w] of the weights at each place of the latents.
    """

    size: tuple[int, int]
    places: tuple[Place, ...]
    weight: Array
    total: Array

    @classmethod
    def of(cls, height: int, width: int, *, side: int, overlap: int) -> Windows:
        """Windows of at most `side` by `side` on latents [height, width]. Neighbours share at least `overlap`."""
        rows, columns = (_starts(length, side, overlap) for length in (height, width))
        size = min(side, height), min(side, width)
        places = tuple(
            (..., slice(top, top + size[0]), slice(left, left + size[1]))
            for top, left in product(rows, columns)
        )
        # Weights are never zero, because a place may be in one window only.
        down, across = (_ramp(length, overlap) for length in size)
        weight = np.outer(down, across).astype(np.float32)
        total = np.zeros((height, width), np.float32)
        for place in places:
            total[place] += weight
        return cls(size=size, places=places, weight=weight, total=total)

    @classmethod
    def of_image(
        cls, height: int, width: int, *, tile_size: int | None, overlap: int, factor: int
    ) -> Windows | None:
        """Windows for an image, all sizes in pixels; None if the denoiser sees the image whole.

        `factor` is the number of pixels per latent on each side.
        """
        if tile_size is None or max(height, width) <= tile_size:
            return None
        return cls.of(height // factor, width // factor, side=tile_size // factor, overlap=overlap // factor)

    def __iter__(self) -> Iterator[Place]:
        return iter(self.places)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where windows begin on a line: evenly, from the line's start to a last window that ends at its end."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _ramp(length: int, overlap: int) -> NDArray[np.float64]:
    """Weights that rise from a window's borders over the overlap to 1."""
    places = np.arange(1, length + 1)
    return np.minimum(np.minimum(places, places[::-1]), overlap + 1) / (overlap + 1)
