"""The complete table: the settings of a request, those of a call, and the other facts in metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.request.setting import Group, Label, Option, Setting, positional, setting, settings_of
from sdrt.request.settings import Settings

if TYPE_CHECKING:
    from sdrt.common.cancelling import Cancel
    from sdrt.schedulers import Scheduler

__all__ = ["FACTS", "TABLE", "WILDCARD_LABELS", "Arguments", "labelled_settings", "parse_size"]


@dataclass(frozen=True, eq=False, repr=False)
class Arguments(Settings):
    """The arguments of a call of a pipeline: those of a request, the scheduler, and the callback.

    The first four may be positional, in the order of diffusers.
    """

    prompt: str | Sequence[str] | None = positional(Settings, "prompt")
    height: int | None = positional(Settings, "height")
    width: int | None = positional(Settings, "width")
    num_inference_steps: int | None = positional(Settings, "num_inference_steps")
    _: KW_ONLY
    scheduler: str | Path | Mapping[str, Any] | Scheduler | None = setting(
        None,
        "A name such as euler, the path of a scheduler_config.json, or its content as a dict.",
        usual="the model's",
        kind=str,
        group=Group.USUAL,
        option=Option(
            ("--scheduler", "--sampler"),
            metavar="NAME|FILE",
            help="A name such as euler (`sdrt schedulers` lists them), or a scheduler_config.json.",
        ),
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
    generator: Any = setting(
        None,
        "In place of seed: a fresh torch.Generator on the CPU, or a list with one for each image.",
        more="The images are those of diffusers. A numpy RandomState stands for the noise of diffusers' ONNX "
        "pipelines, in text to image with a scheduler that adds no noise.",
        group=Group.PROGRAMS,
    )
    callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], Mapping[str, Any] | None] | None = (
        setting(
            None,
            "Called after each step with the pipeline, the step's index, its timestep and a dict of tensors. It may "
            "return a dict of tensors that replace them.",
            group=Group.PROGRAMS,
        )
    )
    callback_on_step_end_tensor_inputs: Sequence[str] = setting(
        ("latents",),
        "The tensors that the callback gets: latents, denoised, prompt_embeds, negative_prompt_embeds.",
        group=Group.PROGRAMS,
    )
    cancel: Cancel | None = setting(
        None,
        "Stops the call, which then raises RunCancelledError: an object with is_set(), such as threading.Event(), or a "
        "function without arguments. sdrt asks it up to a hundred times a second.",
        group=Group.PROGRAMS,
    )


TABLE = settings_of(Arguments)
"""All settings. Each may differ from image to image."""


def parse_size(text: str) -> tuple[int, int]:
    """The width and height in a text such as "512x768". Raises `ValueError`."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.strip())
    if found is None:
        raise ValueError(text)
    return int(found[1]), int(found[2])


WILDCARD_LABELS: Mapping[str, str] = {
    "prompt": "Wildcard prompt",
    "negative_prompt": "Wildcard negative prompt",
    "prompt_2": "Wildcard prompt 2",
    "negative_prompt_2": "Wildcard negative prompt 2",
}
"""The labels of the texts before the choices of wildcards. The first two are those of A1111's extension for them."""

FACTS = (
    # The width and height in pixels.
    Setting(
        name="size",
        label=Label(
            "Size", read=parse_size, write="{0[0]}x{0[1]}".format, expected="pixels, such as 512x512"
        ),
    ),
    Setting(name="model", kind=str, label=Label("Model")),
    # The VAE that replaces the checkpoint's own.
    Setting(name="vae", kind=str, label=Label("VAE")),
    Setting(name="vae_tiling", kind=bool, label=Label("VAE tiling")),
    # A1111's name of the spacing, or of the one nearest to it.
    Setting(name="schedule_type", kind=str, label=Label("Schedule type")),
    Setting(name="scheduler_config", kind=str, label=Label("Scheduler config")),
    Setting(name="batch_size", kind=int, label=Label("Batch size")),
    Setting(name="rng", kind=str, label=Label("RNG")),
    Setting(name="embeddings", kind=str, label=Label("Embeddings")),
    # Names and hashes of LoRAs. The prompt has their tags.
    Setting(name="lora_hashes", kind=str, label=Label("Lora hashes")),
    # The names of the IP-Adapters that saw an image.
    Setting(name="ip_adapters", kind=str, label=Label("IP-Adapter")),
    # Whether they saw it only in a part of the image.
    Setting(name="ip_adapter_masked", kind=bool, label=Label("IP-Adapter masks")),
    # Whether the safety checker flagged the image, which is then black. Absent if it did not look.
    Setting(name="nsfw_content_detected", kind=bool, label=Label("NSFW content detected")),
    # The texts before the choices of wildcards. The prompts in metadata are those after them.
    *(
        Setting(name=f"wildcard_{text}", kind=str, label=Label(name))
        for text, name in WILDCARD_LABELS.items()
    ),
    # An empty negative prompt is encoded. Without one, SDXL takes zeros.
    Setting(name="empty_negative_prompt", kind=bool, label=Label("Empty negative prompt")),
    Setting(name="version", kind=str, label=Label("Version")),
)
"""What metadata contain besides the settings: the size, and what made the image."""

_A1111_ORDER = (
    *("num_inference_steps", "scheduler", "schedule_type", "guidance_scale", "seed", "size", "model", "vae"),
    *("strength", "hires_strength", "image_guidance_scale", "noise_level"),
    *("mask_blur", "padding_mask_crop", "outpaint", "composite", "vae_tiling"),
    *("hires_scale", "hires_steps", "hires_upscaler", "hires_scheduler"),
    *("refiner", "refiner_switch", "refiner_switch_by_steps", "hires_refiner", "clip_skip", "prompt_syntax"),
    *("scheduler_config", "batch_size", "rng", "embeddings", "lora_hashes", "tile_size", "tile_overlap"),
    *("guidance_rescale", "guidance_interval", "timesteps", "sigmas", "eta", "spacing"),
    *("denoising_start", "denoising_end"),
    *("prompt_2", "negative_prompt_2", "empty_negative_prompt"),
    *("original_size", "crops_coords_top_left", "target_size"),
    *("negative_original_size", "negative_crops_coords_top_left", "negative_target_size"),
    *("aesthetic_score", "negative_aesthetic_score"),
)


def labelled_settings(table: Sequence[Setting] = TABLE) -> tuple[Setting, ...]:
    """The settings and facts that metadata contain, in A1111's order.

    Settings that A1111 does not have come after its own, and the version comes last.
    """
    places = {name: place for place, name in enumerate(_A1111_ORDER)}
    rows = [row for row in (*table, *FACTS) if row.label is not None]
    return tuple(sorted(rows, key=lambda row: places.get(row.name, len(places) + (row.name == "version"))))
