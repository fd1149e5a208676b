"""The calls that are recorded for `tests/models/tiny-xl`. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CALLS", "PROMPTS", "given_array"]

PROMPTS = ("", "a red circle", "word " * 40)

# The arguments of a call to sdrt and to diffusers. A call with an image takes `given_array`, and
# diffusers' pipeline for image to image.
CALLS: Mapping[str, Mapping[str, Any]] = {
    "default": {"prompt": "a red circle", "num_inference_steps": 8},
    "empty negative": {"prompt": "a red circle", "negative_prompt": "", "num_inference_steps": 6},
    "second prompts": {
        "prompt": "a red circle",
        "prompt_2": "a star",
        "negative_prompt": "blue",
        "negative_prompt_2": "fog",
        "num_inference_steps": 6,
    },
    "sizes": {
        "prompt": "a star",
        "height": 72,
        "width": 88,
        "original_size": (300, 200),
        "crops_coords_top_left": (7, 30),
        "target_size": (90, 80),
        "negative_original_size": (20, 60),
        "negative_crops_coords_top_left": (1, 2),
        "negative_target_size": (64, 32),
        "num_inference_steps": 6,
    },
    "clip skip": {"prompt": "a star", "clip_skip": 1, "num_inference_steps": 6},
    "unguided": {"prompt": "a red circle", "guidance_scale": 1.0, "num_inference_steps": 6},
    "batch": {"prompt": ["a star", "a heart"], "num_images_per_prompt": 2, "num_inference_steps": 6},
    "image": {"prompt": "a star", "image": "given", "num_inference_steps": 10},
    "image, sizes": {
        "prompt": "a star",
        "image": "given",
        "strength": 0.7,
        "original_size": (300, 200),
        "negative_original_size": (20, 60),
        "num_inference_steps": 8,
    },
}


def given_array() -> NDArray[np.uint8]:
    """The image [H, W, 3] of the calls that have one."""
    y, x = np.mgrid[:48, :64] / 64
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), x * y], -1) / 2 + 0.5
    return (waves * 255).astype(np.uint8)
