"""Published models that were distilled to run in a few steps, and the settings that each was trained for.

Most have no record of these settings in their files, so sdrt goes by their names. A row is for a published model and
for models named after it. Names of merges, such as "…XL Lightning", do not say the number of steps, so no row is for
them. LCM and TCD have rows for merges too, because such models run in any small number of steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CONSISTENCY_SCHEDULERS", "FEW_STEPS", "FewSteps", "few_steps_of", "few_steps_scheduler"]


@dataclass(frozen=True, kw_only=True)
class FewSteps:
    """The settings of one distilled model.

    Attributes:
        title: the model's name in messages.
        pattern: what its name contains. A name is compared in lower case, with one space between words and numbers.
        num_inference_steps: the number of steps that it was trained for.
        source: where the settings are published.
        guidance_scale: 0 for a model that was trained to run without guidance.
        timesteps: those that it was trained on, if no spacing has them.
        scheduler: the keys of its `scheduler_config.json`, for a checkpoint without one.
    """

    title: str
    pattern: str
    num_inference_steps: int
    source: str
    guidance_scale: float = 0.0
    timesteps: tuple[int, ...] | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)


_TRAILING = {"timestep_spacing": "trailing"}
_EULER = {"_class_name": "EulerDiscreteScheduler", **_TRAILING}
_EULER_A = {"_class_name": "EulerAncestralDiscreteScheduler", **_TRAILING}
# Without `set_alpha_to_one`, diffusers' class would end at another noise level.
_DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False, **_TRAILING}
_LCM = {"_class_name": "LCMScheduler"}

_HUB = "https://huggingface.co"
_LIGHTNING = f"{_HUB}/ByteDance/SDXL-Lightning"
_HYPER = f"{_HUB}/ByteDance/Hyper-SD"
_DMD2 = f"{_HUB}/tianweiy/DMD2"
_TURBO = f"{_HUB}/docs/diffusers/using-diffusers/sdxl_turbo"

CONSISTENCY_SCHEDULERS: Mapping[str, tuple[int, float, str]] = {
    "LCMScheduler": (4, 1.0, f"{_HUB}/docs/diffusers/using-diffusers/inference_with_lcm_lora"),
    "TCDScheduler": (4, 0.0, f"{_HUB}/docs/diffusers/using-diffusers/inference_with_tcd_lora"),
}
"""Steps, guidance and source for schedulers that only distilled models have as their own."""


def _lightning(steps: int, **scheduler: Any) -> FewSteps:
    return FewSteps(
        title=f"SDXL-Lightning for {steps} step{'s' if steps > 1 else ''}",
        pattern=rf"\blightning {steps} steps?\b",
        num_inference_steps=steps,
        scheduler=_EULER | scheduler,
        source=_LIGHTNING,
    )


def _hyper(steps: int, *, guided: bool = False) -> FewSteps:
    """`guided` is for the variants that keep guidance. Their model card recommends a scale of 5 to 8."""
    return FewSteps(
        title=f"Hyper-SD for {steps} steps{' with guidance' if guided else ''}",
        pattern=rf"\bhyper (sd|sdxl|sd 15) {steps} steps?{' cfg' if guided else ''}\b",
        num_inference_steps=steps,
        guidance_scale=5.0 if guided else 0.0,
        scheduler=_DDIM,
        source=_HYPER,
    )


def _on_timesteps(*timesteps: int, title: str, pattern: str, source: str) -> FewSteps:
    """A model that uses LCM's scheduler with timesteps of its own."""
    return FewSteps(
        title=title,
        pattern=pattern,
        num_inference_steps=len(timesteps),
        timesteps=timesteps,
        scheduler=_LCM,
        source=source,
    )


def _consistency(class_name: str) -> FewSteps:
    """Models of any number of steps that are named after the method, such as merges of its LoRA."""
    steps, guidance, source = CONSISTENCY_SCHEDULERS[class_name]
    title = class_name.removesuffix("Scheduler")
    return FewSteps(
        title=title,
        pattern=rf"\b{title.lower()}\b",
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler={"_class_name": class_name},
        source=source,
    )


FEW_STEPS: Sequence[FewSteps] = (
    FewSteps(
        title="SD-Turbo",
        pattern=r"\bsd turbo\b",
        num_inference_steps=1,
        # It is a Stable Diffusion 2, whose files do not say what they predict.
        scheduler={**_EULER, "prediction_type": "epsilon"},
        source=f"{_HUB}/stabilityai/sd-turbo",
    ),
    FewSteps(
        title="SDXL-Turbo",
        pattern=r"\b(sdxl|sd xl) turbo\b",
        num_inference_steps=1,
        scheduler=_EULER_A,
        source=_TURBO,
    ),
    # One step that predicts the image itself.
    _lightning(1, prediction_type="sample"),
    *(_lightning(steps) for steps in (2, 4, 8)),
    # The pattern excludes the LoRA for 1 step, which is for TCD.
    _on_timesteps(
        800, title="Hyper-SDXL for 1 step", pattern=r"\bhyper (sd|sdxl) 1 step\b(?! lora)", source=_HYPER
    ),
    *(_hyper(steps, guided=True) for steps in (8, 12)),
    *(_hyper(steps) for steps in (2, 4, 8)),
    _on_timesteps(399, title="DMD2 for 1 step", pattern=r"\bdmd 2 (sdxl )?1 step\b", source=_DMD2),
    # This row is also for merges named after it. They contain its LoRA, which is for 4 steps.
    _on_timesteps(999, 749, 499, 249, title="DMD2 for 4 steps", pattern=r"\bdmd 2\b", source=_DMD2),
    *(_consistency(name) for name in CONSISTENCY_SCHEDULERS),
)
"""The first row whose pattern is in a name counts."""


def few_steps_of(*names: str | None) -> FewSteps | None:
    """The row for a model with one of these names: of a file or folder, a hub id, or a title in metadata."""
    for name in names:
        words = _words(name) if name else ""
        for row in FEW_STEPS:
            if re.search(row.pattern, words):
                return row
    return None


def few_steps_scheduler(*names: str | None) -> Mapping[str, Any]:
    """The keys that replace those of the usual scheduler config, for a checkpoint of these names without a config."""
    row = few_steps_of(*names)
    return {} if row is None else row.scheduler


def _words(name: str) -> str:
    """A name in lower case, with one space between words and numbers, as in "sdxl lightning 4 step"."""
    name = name.lower().replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return " ".join(re.findall(r"[a-z]+|[0-9]+", name))
