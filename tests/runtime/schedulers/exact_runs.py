"""Runs of samplers on distributions whose exact solution is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sdrt.schedulers import SAMPLERS, Scheduler, resolve_scheduler

Latents = npt.NDArray[np.float32]


CONFIG = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "skip_prk_steps": True,
    "clip_sample": False,
    "steps_offset": 1,
}


def scheduler_of(name: str, spacing: str | None = None) -> Scheduler:
    """Of a model that the sampler is for."""
    row = SAMPLERS[name]
    own = {"_class_name": row.class_name} if row.is_for_edm or row.is_for_flow else {}
    return resolve_scheduler(name, CONFIG | own, spacing)


def unit_gaussian(x: Latents, sigma: float) -> Latents:
    """The exact denoiser of standard normal data: x(σ) is then proportional to √(1 + σ²)."""
    return x * (1 / (1 + sigma**2))


def no_noise() -> Latents:
    raise AssertionError("a deterministic sampler drew noise")


def smooth(x: Latents, sigma: float) -> Latents:
    """A denoiser that is no line in x, so that orders matter."""
    return np.asarray(np.tanh(0.6 * x / (1 + sigma)) + 0.1 * np.cos(sigma), dtype=np.float32)


def noise_of(shape: tuple[int, ...] = (2, 4, 4, 4)) -> Any:
    random = np.random.default_rng(5)
    return lambda: random.standard_normal(shape).astype(np.float32)
