"""Arrays in 0..1 to pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["to_bytes", "to_pil", "to_unit"]


def to_unit(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """VAE output [3, H, W] in −1..1 to [H, W, 3] in 0..1."""
    unit: NDArray[np.float32] = (image / 2 + 0.5).clip(0, 1).transpose(1, 2, 0)
    return unit


def to_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[H, W, 3] in 0..1 to 8 bits; halves round to even, as in diffusers."""
    levels: NDArray[np.uint8] = (image * 255).round().astype(np.uint8)
    return levels


def to_pil(image: NDArray[np.float32]) -> Image.Image:
    """[H, W, 3] in 0..1 to an RGB picture."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(to_bytes(image)))
