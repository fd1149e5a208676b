"""The guidance scale as an input of latent consistency models, and the notice about an unused negative prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdrt.request.fitted import FittedRequest

__all__ = ["embedded_guidance", "unused_negative_prompt"]


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


def unused_negative_prompt(request: FittedRequest) -> str | None:
    """The notice for a negative prompt that has no effect. None without one."""
    if request.negative_prompt_embeds is None and not any(request.negative_prompts):
        return None
    if request.guidance_width:
        return "the negative prompt has no effect: this model takes the guidance scale as an input"
    own = (
        ""
        if request.guidance_scale > 1
        else f"guidance_scale is {request.guidance_scale:g}; give a scale above 1"
    )
    return f"the negative prompt has no effect: {own or 'image_guidance_scale is below 1'}"
