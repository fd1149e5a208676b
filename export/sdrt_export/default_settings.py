"""The settings that a model folder records for calls that give none."""

from __future__ import annotations

from typing import Any

from sdrt.families.defaults import Defaults
from sdrt.request.bounds import MAX_STEPS
from sdrt.request.checks import integer, real
from sdrt_export.checkpoints.checkpoint import Checkpoint

__all__ = ["checked_defaults", "default_settings"]


def checked_defaults(guidance_scale: float | None, num_inference_steps: int | None) -> dict[str, Any]:
    """The defaults that a user gave. Raises `RequestError`."""
    given: dict[str, Any] = {}
    if guidance_scale is not None:
        given["guidance_scale"] = real("guidance_scale", guidance_scale, -1e4, 1e4)
    if num_inference_steps is not None:
        given["num_inference_steps"] = integer("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
    return given


def default_settings(checkpoint: Checkpoint) -> Defaults:
    """The defaults by a checkpoint's kind, name and scheduler."""
    family = checkpoint.family
    denoiser = checkpoint.config(family.denoiser.component)
    channels = checkpoint.config(family.vae.checkpoint)["latent_channels"]
    return Defaults.of(
        family.task_of(denoiser, channels),
        family,
        index=checkpoint.index(),
        denoiser=denoiser,
        scheduler=checkpoint.scheduler_config(),
        names=checkpoint.names(),
    )
