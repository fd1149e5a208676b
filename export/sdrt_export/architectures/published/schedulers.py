"""The scheduler configs of published models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "DDIM_V",
    "EULER",
    "EULER_A_TRAILING",
    "EULER_TRAILING",
    "LCM",
    "PNDM",
    "UPSCALER",
    "UPSCALER_LOW_RES",
]

_BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
_UPSCALER_BETAS = {**_BETAS, "beta_start": 0.0001, "beta_end": 0.02}
_USUAL = {
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}

PNDM: Mapping[str, Any] = {"_class_name": "PNDMScheduler", **_BETAS, **_USUAL}
"""The scheduler of Stable Diffusion 1, of 2 for 512x512, and of 2 for inpainting."""

DDIM_V: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    **_BETAS,
    **_USUAL,
    "prediction_type": "v_prediction",
}
"""The scheduler of Stable Diffusion 2 for 768x768."""

EULER: Mapping[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    **_BETAS,
    **_USUAL,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
"""The scheduler of SDXL, its refiner, its model for inpainting, and the models pruned from it."""

EULER_TRAILING: Mapping[str, Any] = {**EULER, "timestep_spacing": "trailing"}
"""The scheduler of SD-Turbo."""

EULER_A_TRAILING: Mapping[str, Any] = {**EULER_TRAILING, "_class_name": "EulerAncestralDiscreteScheduler"}
"""The scheduler of SDXL-Turbo."""

LCM: Mapping[str, Any] = {
    "_class_name": "LCMScheduler",
    **_BETAS,
    "original_inference_steps": 50,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "leading",
}
"""The scheduler of latent consistency models."""

UPSCALER: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    **_UPSCALER_BETAS,
    **_USUAL,
    "prediction_type": "v_prediction",
}

UPSCALER_LOW_RES: Mapping[str, Any] = {"_class_name": "DDPMScheduler", **_UPSCALER_BETAS}
"""The x4 upscaler's second scheduler, which adds noise to the small image."""
