"""The settings of a run that begins or ends within the noise schedule, and of two models that make an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.request.setting import Group, Label, Option, setting
from sdrt.request.size_settings import SizeSettings

__all__ = ["TwoModelSettings"]

_PASSES: Mapping[str, str] = {"first": "first pass", "second": "second pass", "both": "both passes"}


def _pass(text: str) -> str:
    for name, label in _PASSES.items():
        if text.casefold() == label:
            return name
    raise ValueError(text)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TwoModelSettings(SizeSettings):
    """Further rows of the table of settings, between `SizeSettings` and `Settings`."""

    denoising_end: float | None = setting(
        None,
        "Stop when this share of the noise schedule is done, from 0 to 1. Another model can go on from there.",
        more='The images are still noisy. With output_type "latent", you can pass them as image to a call with '
        "{denoising_start}.",
        kind=float,
        bounds=(0.0, 1.0),
        group=Group.TWO_MODELS,
        option=Option(("--denoising-end",), metavar="SHARE"),
        label=Label("Denoising end"),
    )
    denoising_start: float | None = setting(
        None,
        "Begin where a run with the same {denoising_end} stopped. No noise is added, because the image is still noisy.",
        more="It replaces {strength}. The image may be the latents of that run, one for each prompt or for each image.",
        kind=float,
        bounds=(0.0, 1.0),
        only_with=("image",),
        group=Group.TWO_MODELS,
        option=Option(("--denoising-start",), metavar="SHARE"),
        label=Label("Denoising start"),
    )
    refiner: Any = setting(
        None,
        "Another model that takes over in the middle of the run, at {refiner_switch}.",
        more="A model folder, a checkpoint, a hub id, the name of an embedded model, or a StableDiffusionPipeline. Its "
        "latents must be of the same kind. Its VAE decodes the image.",
        kind=str,
        group=Group.TWO_MODELS,
        option=Option(("--refiner",), metavar="MODEL"),
        label=Label("Refiner"),
    )
    refiner_prediction_type: str | None = setting(
        None,
        "What the U-Net of the refiner predicts, if the refiner is a single file.",
        usual="what the file says",
        kind=str,
        choices=("epsilon", "v_prediction"),
        only_with=("refiner",),
        group=Group.TWO_MODELS,
        option=Option(("--refiner-prediction-type",)),
    )
    refiner_config: Any = setting(
        None,
        "A model in diffusers' layout whose configs fit the refiner, if it is a single file of unusual architecture.",
        kind=str,
        only_with=("refiner",),
        group=Group.TWO_MODELS,
        option=Option(("--refiner-config",), metavar="FOLDER|ID"),
    )
    refiner_switch: float = setting(
        0.8,
        "The share of the noise schedule, from 0 to 1, after which the refiner takes over.",
        kind=float,
        bounds=(0.0, 1.0),
        only_with=("refiner",),
        group=Group.TWO_MODELS,
        option=Option(("--refiner-switch", "--refiner-switch-at")),
        label=Label("Refiner switch at", always=True),
    )
    refiner_switch_by_steps: bool = setting(
        False,
        "Let {refiner_switch} be a share of the steps, as in A1111 before version 1.8.",
        kind=bool,
        only_with=("refiner",),
        group=Group.TWO_MODELS,
        option=Option(("--refiner-switch-by-steps",)),
        label=Label("Refiner switch by sampling steps"),
    )
    hires_refiner: str = setting(
        "second",
        "Which pass of {hires_scale} uses the refiner: first, second or both.",
        kind=str,
        choices=tuple(_PASSES),
        only_with=("refiner",),
        group=Group.TWO_MODELS,
        option=Option(("--hires-refiner",)),
        label=Label(
            "Hires refiner",
            read=_pass,
            write=lambda name: _PASSES[name],
            expected=", ".join(_PASSES.values()),
        ),
    )
