"""The values that a model uses for the settings that a request leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdrt.request.bounds import DEFAULT_IMAGE_GUIDANCE, DEFAULT_NOISE_LEVEL
from sdrt.request.checks import integer
from sdrt.request.model_defaults import usual_values
from sdrt.request.request import Request
from sdrt.request.size_conditions import DEFAULT_SCORE, NEGATIVE_SCORE

if TYPE_CHECKING:
    from sdrt.families import Task
    from sdrt.families.capabilities import Capabilities

__all__ = ["default_strength", "defaults_of", "zeroes_negative"]


def defaults_of(request: Request, capabilities: Capabilities, is_distilled: bool) -> dict[str, Any]:
    """The values of a model's own settings, by name, given or not. For `is_distilled`, see `fit`."""
    values = _task_values(request, capabilities) | _scores(request, capabilities)
    return values | usual_values(request, capabilities, is_distilled)


def zeroes_negative(request: Request, capabilities: Capabilities) -> bool:
    """Whether the unconditional embeddings are zeros. As in diffusers, a negative prompt that is empty is encoded."""
    return capabilities.zeroes and request.negative_prompt is None and request.negative_prompt_embeds is None


def default_strength(request: Request, task: Task) -> float:
    """The strength of a request, or diffusers' default for the task. Outpainting adds content, so it has 1."""
    if request.strength is not None:
        return request.strength
    if request.outpaint is not None:
        return 1.0
    return task.strength if request.mask_image is None else task.masked_strength


def _scores(request: Request, capabilities: Capabilities) -> dict[str, float]:
    if not capabilities.takes_score:
        return {}
    score, negative = request.aesthetic_score, request.negative_aesthetic_score
    return {
        "aesthetic_score": DEFAULT_SCORE if score is None else score,
        "negative_aesthetic_score": NEGATIVE_SCORE if negative is None else negative,
    }


def _task_values(request: Request, capabilities: Capabilities) -> dict[str, Any]:
    """The default values for the task that the model is made for."""
    task = capabilities.task
    if request.image is None:
        return {}
    if "strength" not in task.refuses:
        # With denoising_start, a strength has no effect.
        return {} if request.denoising_start is not None else {"strength": default_strength(request, task)}
    if task.has_image_guidance:
        scale = request.image_guidance_scale
        return {"image_guidance_scale": DEFAULT_IMAGE_GUIDANCE if scale is None else scale}
    level, most = request.noise_level, capabilities.max_noise_level
    level = min(DEFAULT_NOISE_LEVEL, most) if level is None else level
    integer("noise_level", level, 0, most)
    return {"noise_level": level}
