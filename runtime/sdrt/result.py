"""What a run gives: each step as it is taken, then the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.request import Request

if TYPE_CHECKING:
    from sdrt.denoiser import Denoiser
    from sdrt.schedulers import Plan, Step

__all__ = ["CALLBACK_TENSORS", "GenerationStep", "StableDiffusionPipelineOutput"]

Array = NDArray[np.float32]
CALLBACK_TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds")


@dataclass(frozen=True, kw_only=True)
class StableDiffusionPipelineOutput:
    """What a call gives.

    `images`: PIL pictures; or float32 [N, H, W, 3] in 0..1 for "np"; or latents [N, C, h, w] for "latent".
    `seeds`: the seed that makes each picture alone again. `timings`: seconds, `unet` one per evaluation.
    """

    images: Any
    seeds: list[int]
    request: Request
    timings: dict[str, Any] = field(default_factory=dict)


class GenerationStep:
    """One denoising step that has been taken; until the next one, the run is the caller's to change."""

    def __init__(self, step: Step, plan: Plan, denoiser: Denoiser, embeds: Array, prompts: int) -> None:
        self.index, self.timestep, self.last = step.index, step.timestep, step.last
        self.num_steps = plan.num_evaluations
        self.denoised: Array = step.denoised
        """Estimate of the clean latents [N, C, h, w], for previews."""
        self._x, self._scale = step.x, np.float32(plan.latents_scale(step.sigma))
        self._denoiser, self._embeds, self._prompts = denoiser, embeds, prompts

    @property
    def latents(self) -> Array:
        """A copy of the latents [N, C, h, w], scaled as diffusers' `latents`."""
        latents: Array = self._x * self._scale
        return latents

    def tensors(self, names: Sequence[str]) -> dict[str, Array]:
        """Copies of the named tensors, of `CALLBACK_TENSORS`."""
        makers: dict[str, Callable[[], Array]] = {
            "latents": lambda: self.latents,
            "prompt_embeds": self._embeds.copy,
            "negative_prompt_embeds": lambda: self._embeds[: self._prompts].copy(),
        }
        return {name: makers[name]() for name in names}

    def update(self, tensors: Mapping[str, Array]) -> None:
        """Go on with these `latents` or `prompt_embeds` (with guidance: unconditional half first)."""
        for name, value in tensors.items():
            if name not in CALLBACK_TENSORS:
                raise RequestError(f"the callback returned {name!r}: expected {', '.join(CALLBACK_TENSORS)}")
            if name == "latents" and not np.array_equal(value, self.latents):
                _require_shape(name, value, self._x.shape)
                np.divide(value, self._scale, out=self._x)
            if name == "prompt_embeds" and not np.array_equal(value, self._embeds):
                _require_shape(name, value, self._embeds.shape)
                np.copyto(self._embeds, value)
                self._denoiser.condition(self._embeds)


def _require_shape(name: str, value: Array, shape: tuple[int, ...]) -> None:
    if np.shape(value) != shape:
        raise RequestError(f"the callback returned {name} of shape {np.shape(value)}: expected {shape}")
