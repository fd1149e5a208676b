"""The cases that are recorded for `tests/models/tiny`: prompts, component inputs and calls. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CALLS", "PROMPTS", "component_inputs"]

PROMPTS = ("", "a red circle", "Grüße,  東京 🗼 — it's 2026!", "word " * 40)

# The arguments of a call to sdrt and to diffusers. `scheduler` is sdrt's name; `record_pipeline` has the classes.
CALLS: Mapping[str, Mapping[str, Any]] = {
    "default": {"prompt": "a red circle", "num_inference_steps": 10},
    "negative": {
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "num_inference_steps": 6,
        "guidance_scale": 4.0,
    },
    "unguided": {"prompt": "a red circle", "guidance_scale": 1.0, "num_inference_steps": 6},
    "odd size": {"prompt": "a star", "height": 72, "width": 88, "num_inference_steps": 6},
    "batch": {"prompt": ["a star", "a heart"], "num_images_per_prompt": 2, "num_inference_steps": 4},
    "clip skip": {"prompt": "a star", "clip_skip": 1, "num_inference_steps": 4},
    "euler": {"prompt": "a ring", "scheduler": "euler", "num_inference_steps": 8},
    "euler_a": {"prompt": "a ring", "scheduler": "euler_a", "num_inference_steps": 8},
    "ddim": {"prompt": "a ring", "scheduler": "ddim", "num_inference_steps": 8, "eta": 0.5},
    "dpmpp_2m karras": {"prompt": "a ring", "scheduler": "DPM++ 2M Karras", "num_inference_steps": 8},
}


def component_inputs() -> dict[str, dict[str, NDArray[Any]]]:
    """Inputs of each component, by the graph's names. Some latents have odd sizes."""
    draw = np.random.default_rng(2026).standard_normal
    return {
        "unet": {
            "sample": draw((2, 4, 7, 10), dtype=np.float32),
            "timestep": np.array(301.5, np.float32),
            "encoder_hidden_states": draw((2, 77, 32), dtype=np.float32),
        },
        "vae_decoder": {"latent_sample": draw((1, 4, 5, 6), dtype=np.float32)},
        "vae_encoder": {"sample": draw((1, 3, 40, 48), dtype=np.float32)},
    }
