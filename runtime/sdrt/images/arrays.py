"""Images as the VAE's arrays in −1..1, as arrays in 0..1, and in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["side_by_side", "signed", "to_bytes", "to_pil", "to_unit"]


def signed(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An image [H, W, 3] of 8 bits as the VAE takes it, [3, H, W] in −1..1."""
    return np.ascontiguousarray((image.astype(np.float32) / np.float32(127.5) - 1).transpose(2, 0, 1))


def to_unit(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The VAE's output [3, H, W] in −1..1 as an image [H, W, 3] in 0..1."""
    unit: NDArray[np.float32] = (image / 2 + 0.5).clip(0, 1).transpose(1, 2, 0)
    return unit


def to_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image [H, W, 3] in 0..1 as one of 8 bits. Halves round to even, as in diffusers."""
    levels: NDArray[np.uint8] = (image * 255).round().astype(np.uint8)
    return levels


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images of the same height, in one row."""
    from PIL import Image

    row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return row


def to_pil(image: NDArray[np.float32]) -> Image.Image:
    """An image [H, W, 3] in 0..1 as an RGB image of Pillow."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(to_bytes(image)))
