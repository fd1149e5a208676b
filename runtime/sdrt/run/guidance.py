"""The guidance scale as an input of latent consistency models, and notices about settings that need guidance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdrt.request.fitted import FittedRequest

__all__ = ["embedded_guidance", "unused_guidance"]


def embedded_guidance(scale: float, width: int) -> NDArray[np.float32]:
    """Embed a guidance scale as a vector [width], as timesteps are (Luo et al. 2023, arXiv:2310.04378, section 4.3).

    The paper's ω is the scale minus 1. The embedded value is 1000 ω. All arithmetic is in float32, as in diffusers.
    """
    half = width // 2
    omega = np.float32(scale - 1) * np.float32(1000)
    rate = -(np.log(np.float32(10000)) / np.float32(max(1, half - 1)))
    angles = omega * np.exp(np.arange(half, dtype=np.float32) * rate)
    # A vector of odd width ends in a zero.
    return np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)])


def unused_guidance(request: FittedRequest) -> list[str]:
    """The notices about settings that have no effect, because a request has no guidance."""
    given = {
        "the negative prompt": request.negative_prompt_embeds is not None or any(request.negative_prompts),
        "guidance_interval": request.guidance_interval is not None,
    }
    return [f"{name} has no effect: {_why_unguided(request)}" for name, is_given in given.items() if is_given]


def _why_unguided(request: FittedRequest) -> str:
    if request.guidance_width:
        return "this model takes the guidance scale as an input"
    if request.guidance_scale > 1:
        return "image_guidance_scale is below 1"
    return f"guidance_scale is {request.guidance_scale:g}; give a scale above 1"
