"""Stable Diffusion XL and its refiner (Podell et al. 2023, arXiv:2307.01952), for every task.

The base model has two text encoders, the refiner only the second one. Both take sizes beside the text: those of the
training image and of the result, or an aesthetic score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import UnsupportedModelError
from sdrt.families.encoded import RowConditions
from sdrt.families.family import Family
from sdrt.families.specs import DenoiserSpec, IndexEntry, Task, TextEncoderSpec, VaeSpec
from sdrt.families.stable_diffusion import STABLE_DIFFUSION

__all__ = ["STABLE_DIFFUSION_XL", "STABLE_DIFFUSION_XL_REFINER"]

# How many numbers the U-Net takes: three pairs with the target size, or two pairs and the score.
_WITH_TARGET, _WITH_SCORE = 6, 5


def _text_embeds(row: RowConditions) -> NDArray[Any]:
    assert row.pooled is not None  # every request has pooled embeddings
    return row.pooled


def _time_ids(row: RowConditions) -> NDArray[Any]:
    """Six numbers that end in the target size, or five that end in the aesthetic score."""
    last = row.target_size if row.aesthetic_score is None else (row.aesthetic_score,)
    return np.array([*row.original_size, *row.crop, *last], np.float32)


def _takes_score(unet: Mapping[str, Any], text: Mapping[str, Any], index: Mapping[str, Any]) -> bool:
    """Tell whether the U-Net takes five numbers. Its config has the width of these and of the pooled text together.

    Raises:
        UnsupportedModelError: it takes another count.
    """
    width, whole = unet.get("addition_time_embed_dim"), unet.get("projection_class_embeddings_input_dim")
    pooled = text.get("projection_dim")
    if not (type(width) is int and width > 0 and type(whole) is int and type(pooled) is int):
        return index.get("requires_aesthetics_score") is True
    if whole - pooled in (_WITH_TARGET * width, _WITH_SCORE * width):
        return whole - pooled == _WITH_SCORE * width
    raise UnsupportedModelError.expected(
        f"unet/config.json: projection_class_embeddings_input_dim is {whole}, with sizes of {width} and pooled "
        f"embeddings of {pooled}",
        f"{_WITH_TARGET * width + pooled} or {_WITH_SCORE * width + pooled}",
        component="unet",
    )


_REFUSES = ("image_guidance_scale", "noise_level")
_TASKS = (
    Task(
        name="text to image",
        pipeline="StableDiffusionXLPipeline",
        guidance_scale=5.0,
        masked_guidance_scale=7.5,
        strength=0.3,
        masked_strength=0.9999,
        refuses=_REFUSES,
    ),
    Task(
        name="inpainting",
        pipeline="StableDiffusionXLInpaintPipeline",
        sees_latents=True,
        planes=1,
        masked_strength=0.9999,
        needs=("image", "mask_image"),
        refuses=_REFUSES,
    ),
    Task(
        name="instructions",
        pipeline="StableDiffusionXLInstructPix2PixPipeline",
        sees_latents=True,
        has_image_guidance=True,
        guidance_scale=5.0,
        needs=("image",),
        refuses=(
            *("strength", "denoising_start", "mask_image", "padding_mask_crop", "outpaint"),
            *("noise_level", "hires_scale"),
            *("negative_original_size", "negative_crops_coords_top_left", "negative_target_size"),
        ),
    ),
)

_CLIP = TextEncoderSpec(embeds="hidden_states", layer=1)
_OPEN_CLIP = TextEncoderSpec(
    component="text_encoder_2",
    tokenizer="tokenizer_2",
    embeds="hidden_states",
    layer=1,
    pooled="text_embeds",
    part=1,
)
_SHARED = STABLE_DIFFUSION.index

STABLE_DIFFUSION_XL = Family(
    name="stable-diffusion-xl",
    title="Stable Diffusion XL",
    pipelines=frozenset(
        {"ORTStableDiffusionXLPipeline", "ORTStableDiffusionXLImg2ImgPipeline"}
        | {"ORTStableDiffusionXLInpaintPipeline"}
    ),
    checkpoint_pipelines=frozenset({"StableDiffusionXLImg2ImgPipeline"}),
    index={
        **{name: _SHARED[name] for name in ("text_encoder", "tokenizer", "unet")},
        **{name: _SHARED[name] for name in ("vae", "vae_decoder", "vae_encoder", "scheduler")},
        "text_encoder_2": IndexEntry(
            library="transformers",
            classes=frozenset({"CLIPTextModelWithProjection"}),
            exported=frozenset({"ORTTextEncoder", "ORTModelTextEncoder"}),
        ),
        "tokenizer_2": _SHARED["tokenizer"],
    },
    ignored=frozenset({"feature_extractor", "image_encoder", "watermark"}),
    absent=dict.fromkeys(("feature_extractor", "image_encoder"), (None, None)),
    text_encoders=(_CLIP, _OPEN_CLIP),
    denoiser=DenoiserSpec(extra={"text_embeds": _text_embeds, "time_ids": _time_ids}),
    vae=VaeSpec(normalises=True),
    tasks=_TASKS,
    default_size=1024,
    options=("force_zeros_for_empty_prompt", "requires_aesthetics_score", "is_cosxl_edit"),
    zeroes="force_zeros_for_empty_prompt",
    takes_score=_takes_score,
)

_LACKS = frozenset({"text_encoder", "tokenizer"})

STABLE_DIFFUSION_XL_REFINER = replace(
    STABLE_DIFFUSION_XL,
    name="stable-diffusion-xl-refiner",
    title="Stable Diffusion XL's refiner",
    index={name: entry for name, entry in STABLE_DIFFUSION_XL.index.items() if name not in _LACKS},
    absent={**STABLE_DIFFUSION_XL.absent, **dict.fromkeys(sorted(_LACKS), (None, None))},
    text_encoders=(_OPEN_CLIP,),
    # It makes images from text too, but it was trained to finish the base model's images.
    tasks=(
        replace(_TASKS[0], name="image to image", pipeline="StableDiffusionXLImg2ImgPipeline"),
        *_TASKS[1:],
    ),
    checkpoint_pipelines=frozenset({"StableDiffusionXLPipeline"}),
    lacks=_LACKS,
)
