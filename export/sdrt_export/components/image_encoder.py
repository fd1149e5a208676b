"""CLIP's vision encoder, which image prompts read, and the safety checker, which is made of one."""

from __future__ import annotations

from collections.abc import Callable

from sdrt_export.architectures.clip_vision import (
    PENULTIMATE,
    ClipVisionConfig,
    clip_vision,
    safety_checker,
    vision_config,
)
from sdrt_export.components.component import Component, Config, Inputs, noise
from sdrt_export.graphs.layers import Layers

__all__ = ["IMAGE_ENCODER", "SAFETY_CHECKER"]

_CHECKER = "safety_checker"
_COSINES = ("special_cos_dist", "cos_dist")
_THRESHOLDS = ("special_thresholds", "thresholds")


def _checker_config(values: Config) -> ClipVisionConfig:
    return ClipVisionConfig.of(vision_config(values, _CHECKER), _CHECKER)


def _examples(of: Callable[[Config], ClipVisionConfig], name: str) -> Callable[[Config, int], Inputs]:
    def examples(values: Config, size: int) -> Inputs:
        config = of(values)
        return {name: noise([2, 1, 3][size], config.channels, config.size, config.size, seed=size)}

    return examples


def _write_encoder(values: Config, g: Layers, hosted: bool) -> None:
    clip_vision(ClipVisionConfig.of(values), g)


def _write_checker(values: Config, g: Layers, hosted: bool) -> None:
    safety_checker(_checker_config(values), g)


IMAGE_ENCODER = Component(
    name="image_encoder",
    checkpoint="image_encoder",
    library="transformers",
    class_name="CLIPVisionModelWithProjection",
    write=_write_encoder,
    examples=_examples(ClipVisionConfig.of, "pixel_values"),
    outputs=lambda config: ["image_embeds", PENULTIMATE],
    # A whole CLIP's file has its text encoder too.
    unused=("text_model.", "text_projection.", "logit_scale"),
)
SAFETY_CHECKER = Component(
    name=_CHECKER,
    checkpoint=_CHECKER,
    library="stable_diffusion",
    class_name="StableDiffusionSafetyChecker",
    write=_write_checker,
    examples=_examples(_checker_config, "clip_input"),
    outputs=lambda config: [*_COSINES, *_THRESHOLDS],
)
