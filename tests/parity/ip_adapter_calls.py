"""Calls with image prompts of sdrt and of diffusers, and the comparison of what they make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image, ImageDraw

from sdrt import StableDiffusionPipeline

LEVEL, LATENTS = 1 / 255, 2e-3
SIZE = (72, 48)
ADAPTERS = ("base", "plus")

Adapter = Callable[[str, str, int], Path]


def prompt_image(number: int = 0, size: tuple[int, int] = (50, 40)) -> Image.Image:
    drawn = Image.new("RGB", size, (40 * number, 90, 200 - 60 * number))
    ImageDraw.Draw(drawn).ellipse((9, 5 + 4 * number, 33, 30), fill=(250, 60 * number, 30))
    return drawn


def mask(left: bool) -> Image.Image:
    drawn = Image.new("L", SIZE)
    ImageDraw.Draw(drawn).rectangle((0, 0, 30, 48) if left else (31, 0, 72, 48), fill=255)
    return drawn


@functools.cache
def opened(source: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        source, provider="cpu", threads=1, notify=lambda _: None, **options
    )


def ours(source: Path, files: Sequence[Path], encoder: Path) -> StableDiffusionPipeline:
    made = opened(source)
    made.load_ip_adapter(list(files), image_encoder=encoder)
    return made


def oracle(source: Path, files: Sequence[Path], encoder: Path, kind: str = "DiffusionPipeline") -> Any:
    from transformers import CLIPVisionModelWithProjection

    made = getattr(diffusers, kind).from_pretrained(
        source, image_encoder=CLIPVisionModelWithProjection.from_pretrained(encoder)
    )
    made.set_progress_bar_config(disable=True)
    made.load_ip_adapter(
        [str(one.parent) for one in files],
        subfolder=[""] * len(files),
        weight_name=[one.name for one in files],
        image_encoder_folder=None,
    )
    return made


def their_masks(masks: Any, height: int, width: int) -> dict[str, Any]:
    """diffusers' argument for masks, a list of them for each adapter. Empty without any."""
    from diffusers.image_processor import IPAdapterMaskProcessor

    if masks is None:
        return {}
    process = IPAdapterMaskProcessor().preprocess
    grouped = [process(group, height=height, width=width) for group in masks]
    tensors = [one.reshape(1, one.shape[0], one.shape[2], one.shape[3]) for one in grouped]
    return {"cross_attention_kwargs": {"ip_adapter_masks": tensors}}


def compared(
    pipeline: StableDiffusionPipeline,
    theirs: Any,
    images: Any,
    *,
    scale: Any = 1.0,
    masks: Any = None,
    more: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Compare images and latents. `more` is for diffusers alone, `own` for sdrt."""
    width, height = SIZE
    call: dict[str, Any] = {
        "prompt": "a lake",
        "negative_prompt": "fog",
        "num_inference_steps": 5,
        "guidance_scale": 5.0,
        **options,
    }
    theirs.set_ip_adapter_scale(scale)
    given = their_masks(masks, height, width)
    pipeline.set_ip_adapter_scale(scale)
    for kind, tolerance in (("np", LEVEL), ("latent", LATENTS)):
        seeds = [3 + index for index in range(options.get("num_images_per_prompt", 1))]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        generator = generators if len(seeds) > 1 else generators[0]
        size = {} if "image" in call and "mask_image" not in call else {"height": height, "width": width}
        expected = theirs(
            **call,
            **size,
            **given,
            **(more or {}),
            ip_adapter_image=images,
            generator=generator,
            output_type=kind,
        ).images
        found = pipeline(
            **call,
            **(own or {}),
            ip_adapter_image=images,
            ip_adapter_masks=masks,
            height=height,
            width=width,
            seed=3,
            output_type=kind,
        ).images
        error = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
        limit = tolerance * (1 if kind == "np" else max(1.0, float(np.abs(np.asarray(expected)).max())))
        assert error <= limit, (kind, error)
