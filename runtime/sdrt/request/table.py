"""All rows together: the settings of a request, those of a call, and what image files say besides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.request.setting import Group, Label, Option, Setting, setting, settings_of
from sdrt.request.settings import Settings

if TYPE_CHECKING:
    from sdrt.schedulers import Scheduler

__all__ = ["FACTS", "TABLE", "WITHOUT_HIRES", "Arguments", "said"]


@dataclass(frozen=True, eq=False, repr=False)
class Arguments(Settings):
    """What a call of a pipeline takes: what a request says, how it is sampled, and who is told of its steps."""

    _: KW_ONLY
    scheduler: str | Path | Mapping[str, Any] | Scheduler | None = setting(
        None,
        "A name such as euler, a scheduler_config.json, or what diffusers has in one as a dict.",
        usual="the model's",
        kind=str,
        group=Group.USUAL,
        option=Option(
            ("--scheduler",),
            metavar="NAME|FILE",
            also=("sampler",),
            help="A name such as euler (`sdrt schedulers` lists them), or a scheduler_config.json.",
        ),
        # A1111's name of a sampler includes "Karras" and the like.
        label=Label("Sampler"),
    )
    spacing: str | None = setting(
        None,
        "Which noise levels the steps visit, such as karras.",
        usual="the scheduler's",
        kind=str,
        group=Group.SAMPLING,
        option=Option(("--spacing",), metavar="NAME", usual=""),
        label=Label("Spacing"),
    )
    callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], Mapping[str, Any] | None] | None = (
        setting(
            None,
            "Called after each step with the pipeline, the step's index, its timestep and a dict of tensors. It may "
            "return tensors to go on with.",
            group=Group.PROGRAMS,
        )
    )
    callback_on_step_end_tensor_inputs: Sequence[str] = setting(
        ("latents",),
        "The tensors that the callback gets: latents, denoised, prompt_embeds, negative_prompt_embeds.",
        group=Group.PROGRAMS,
    )


TABLE = settings_of(Arguments)
"""Every setting that an image may have for itself."""

WITHOUT_HIRES: Mapping[str, Any] = {
    row.name: row.default for row in TABLE if "hires_scale" in (row.name, *row.only_with)
}
"""What a request for one of the two images of `hires_scale` says of it."""


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.strip())
    if found is None:
        raise ValueError(text)
    return int(found[1]), int(found[2])


FACTS = (
    # Width and height, in pixels.
    Setting(
        name="size",
        label=Label("Size", read=_size, write="{0[0]}x{0[1]}".format, expected="pixels, such as 512x512"),
    ),
    Setting(name="model", kind=str, label=Label("Model")),
    Setting(name="vae_tiling", kind=bool, label=Label("VAE tiling")),
    Setting(name="scheduler_config", kind=str, label=Label("Scheduler config")),
    Setting(name="batch_size", kind=int, label=Label("Batch size")),
    Setting(name="rng", kind=str, label=Label("RNG")),
    Setting(name="embeddings", kind=str, label=Label("Embeddings")),
    Setting(name="version", kind=str, label=Label("Version")),
)
"""What image files say besides the settings: of what made them."""

_A1111_ORDER = (
    *("num_inference_steps", "scheduler", "guidance_scale", "seed", "size", "model"),
    *("strength", "hires_strength", "image_guidance_scale", "noise_level"),
    *("mask_blur", "padding_mask_crop", "outpaint", "composite", "vae_tiling"),
    *("hires_scale", "hires_steps", "hires_upscaler", "clip_skip", "prompt_syntax"),
    *("scheduler_config", "batch_size", "rng", "embeddings", "tile_size", "tile_overlap"),
    *("guidance_rescale", "timesteps", "sigmas", "eta", "spacing"),
)


def said(table: Sequence[Setting] = TABLE) -> tuple[Setting, ...]:
    """What image files say, in A1111's order; a setting that it does not name comes after, and the version last."""
    places = {name: place for place, name in enumerate(_A1111_ORDER)}
    rows = [row for row in (*table, *FACTS) if row.label is not None]
    return tuple(sorted(rows, key=lambda row: places.get(row.name, len(places) + (row.name == "version"))))
