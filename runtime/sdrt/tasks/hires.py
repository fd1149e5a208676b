"""Enlarging a small image before it is denoised again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Latents", "enlarged_latents", "enlarged_size"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents [prompts or images, C, h, w], in place of images."""

    array: Array


def enlarged_latents(latents: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Latents [C, h, w] enlarged to [C, height, width], bilinearly as by A1111's "Latent" upscaler."""
    from PIL import Image

    channels = (Image.fromarray(channel) for channel in latents)
    return np.stack(
        [np.asarray(channel.resize((width, height), Image.Resampling.BILINEAR)) for channel in channels]
    )


def enlarged_size(height: int, width: int, scale: float, step: int) -> tuple[int, int]:
    """Height and width enlarged by `scale`, rounded to multiples of `step` pixels."""
    return round(height * scale / step) * step, round(width * scale / step) * step
