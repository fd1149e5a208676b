"""What the comparisons of image prompts have in common: an image, schedulers, and how close is close."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

__all__ = ["HALF_LEVEL", "SCHEDULERS", "given_image"]

# What rounding an image to 8 bits hides.
HALF_LEVEL = 0.5 / 255

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def given_image(width: int = 72, height: int = 48) -> Image.Image:
    """Waves of colour, smooth and nowhere the same."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), x * y], -1) / 2 + 0.5
    return Image.fromarray((waves * 255).astype(np.uint8))
