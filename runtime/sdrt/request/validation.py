"""The checks of a request. They run once, when it is constructed.

They also convert values: they read images into arrays, and turn numbers into plain Python numbers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdrt.common.messages import brief, refused, wrong_value
from sdrt.common.seeds import seeds_from, settled_seed
from sdrt.errors import RequestError
from sdrt.images.given_arrays import as_array, is_array_like, is_images
from sdrt.images.reading import checked_count, read_images, read_masks
from sdrt.prompts.comments import without_comments
from sdrt.request.bounds import MAX_IMAGES
from sdrt.request.checks import both_given, check_text, checked, integer, tensor
from sdrt.request.controls import check_controls
from sdrt.request.guidance_interval import check_guidance_interval
from sdrt.request.image_prompts import check_image_prompts
from sdrt.request.loras import checked_loras, lora_tags
from sdrt.request.setting import Setting, settings_of
from sdrt.request.two_model_checks import check_part, check_refiner
from sdrt.tasks.hires import Latents
from sdrt.tasks.inpainting import resized_mask
from sdrt.tasks.outpainting import parse_growth

if TYPE_CHECKING:
    from sdrt.request.derived import DerivedSettings

__all__ = ["no_steps", "validate"]

_TEXTS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")
_ROUNDED = 8
"""Sizes are often rounded to multiples of this many pixels, so proportions are only as exact."""


def validate(request: DerivedSettings) -> None:
    """Check and convert every value of a `request` under construction. Raises `RequestError`."""
    table = settings_of(type(request))
    _check_levels(request, table)
    for row in table:
        value = getattr(request, row.name)
        # Default values need no check.
        if value is not row.default and (valid := checked(row, value)) is not value:
            _set(request, row.name, valid)
    _check_prompts(request)
    if request.prompt_comments:
        _leave_out_comments(request)
    _set(request, "lora", checked_loras(request.lora))
    _check_lora_dir(request)
    _check_unused(request, table)
    most = max(1, MAX_IMAGES // max(1, request.num_prompts))
    count = integer("num_images_per_prompt", request.num_images_per_prompt, 1, most)
    _set(request, "num_images_per_prompt", count)
    _check_image(request)
    check_guidance_interval(request)
    check_controls(request)
    check_image_prompts(request)
    _check_hires(request)
    check_part(request)
    check_refiner(request)
    _check_seed(request)


def _set(request: DerivedSettings, name: str, value: Any) -> None:
    object.__setattr__(request, name, value)


def _check_prompts(request: DerivedSettings) -> None:
    if (request.prompt is None) == (request.prompt_embeds is None):
        given = "neither" if request.prompt is None else "both"
        fits = "either prompt or prompt_embeds"
        raise RequestError(f"expected {fits}, got {given}", argument="prompt", fits=fits)
    for name in ("negative_prompt", "negative_prompt_2"):
        if getattr(request, name) is not None and request.negative_prompt_embeds is not None:
            raise both_given(name, "negative_prompt_embeds")
    for name in _TEXTS:
        check_text(name, getattr(request, name))
    for name in _TEXTS[1:]:
        _check_count(name, getattr(request, name), request.num_prompts)
    if request.num_prompts > MAX_IMAGES:
        raise RequestError.expected(
            f"there are {request.num_prompts} prompts",
            f"at most {MAX_IMAGES}; make several calls",
            argument="prompt",
        )


def _check_count(name: str, texts: object, prompts: int) -> None:
    """Raise `RequestError` for a list of texts that has not one for each prompt."""
    if isinstance(texts, (list, tuple)) and len(texts) != prompts:
        raise RequestError.advised(
            f"{name} has {len(texts)} strings for {prompts} prompts",
            "give one for each prompt, or a single string",
            joint="; ",
            argument=name,
        )


def _check_lora_dir(request: DerivedSettings) -> None:
    given = request.lora_dir
    if given is None:
        return
    if not isinstance(given, (str, os.PathLike)) or not str(given) or "\0" in str(given):
        raise wrong_value("lora_dir", given, "a folder")
    _set(request, "lora_dir", Path(given).expanduser())
    lora_tags(request)


def _leave_out_comments(request: DerivedSettings) -> None:
    for name in _TEXTS:
        given = getattr(request, name)
        if isinstance(given, str):
            _set(request, name, without_comments(given))
        elif given is not None:
            _set(request, name, [without_comments(text) for text in given])


def _check_levels(request: DerivedSettings, table: Sequence[Setting]) -> None:
    """Check `timesteps` and `sigmas`, and set the number of steps from them."""
    for row in table:
        value = getattr(request, row.name)
        if row.name not in ("timesteps", "sigmas") or value is None:
            continue
        levels = checked(row, value)
        # The last sigma is where the last step ends, so it has no step of its own.
        count = len(levels) if row.name == "timesteps" else max(1, len(levels) - 1)
        _set(request, row.name, levels)
        _set(request, "num_inference_steps", count)
        if request.hires_steps is not None:
            raise both_given(row.name, "hires_steps")


def _check_image(request: DerivedSettings) -> None:
    if request.image is None:
        return
    if request.latents is not None:
        raise both_given("image", "latents")
    if latents := _latents_given(request):
        # With denoising_start, the latents are those of a run with the same mask, as in diffusers.
        masks = ("mask_image",) if request.denoising_start is None else ()
        for name in (*masks, "padding_mask_crop", "outpaint"):
            if getattr(request, name) is not None:
                raise RequestError.advised(
                    f"{name} needs pixels, but image contains latents",
                    "give an image in pixels",
                    joint="; ",
                    argument="image",
                )
        _set(request, "image", latents)
    else:
        images = read_images("image", request.image)
        _set(request, "image", checked_count("image", images, request.num_prompts))
    _check_mask(request)
    _check_outpaint(request)


def _latents_given(request: DerivedSettings) -> Latents | None:
    """The latents [N, C, h, w] in `image`, which accepts them as diffusers does. None if `image` is not latents."""
    if isinstance(request.image, Latents):
        return request.image
    if not is_array_like(request.image):
        return None
    array = as_array("image", request.image)
    if array.ndim != 4 or is_images(array):
        return None
    given = tensor("image", array, rank=4)
    assert given is not None  # because `array` is not None
    if len(given) not in (1, request.num_prompts, request.num_images):
        raise RequestError.advised(
            f"image has latents of {len(given)} images for {request.num_prompts} prompts",
            "give one for each prompt, one for each image, or one",
            joint="; ",
            argument="image",
        )
    return Latents(np.broadcast_to(given, (max(len(given), request.num_prompts), *given.shape[1:])))


def _check_unused(request: DerivedSettings, table: Sequence[Setting]) -> None:
    """Refuse a setting that has no effect without another setting."""
    for row in table:
        value = getattr(request, row.name)
        given = value is not None if row.default is None else value != row.default
        if not row.only_with or not given or any(getattr(request, one) is not None for one in row.only_with):
            continue
        needed = " or ".join(row.only_with)
        raise RequestError.advised(
            f"{row.name} has no effect without {needed}",
            f"give {needed}, or leave out {row.name}",
            joint="; ",
            argument=row.name,
        )


def _check_hires(request: DerivedSettings) -> None:
    if request.hires_scale is None:
        return
    if request.image is not None:
        raise RequestError.advised(
            "hires_scale cannot be used with an image",
            "to enlarge the image, give height and width",
            joint="; ",
            argument="hires_scale",
        )


def _check_mask(request: DerivedSettings) -> None:
    if request.mask_image is None:
        return
    masks = checked_count("mask_image", read_masks("mask_image", request.mask_image), request.num_prompts)
    if request.image_is_latents:
        _set(request, "mask_image", masks)
        return
    (height, width), (tall, wide) = masks[0].shape, request.image[0].shape[:2]
    if min(abs(width * tall / wide - height), abs(height * wide / tall - width)) >= _ROUNDED:
        raise refused(
            "mask_image",
            f"has {width}x{height} pixels, and image has {wide}x{tall}",
            "the same size or the same proportions",
        )
    if (height, width) != (tall, wide):
        masks = tuple(resized_mask(mask, tall, wide, covers=request.composite) for mask in masks)
    _set(request, "mask_image", masks)


def _check_outpaint(request: DerivedSettings) -> None:
    if request.outpaint is None:
        return
    for name, usual in (("mask_image", None), ("height", None), ("width", None), ("composite", True)):
        if getattr(request, name) != usual:
            raise both_given("outpaint", name)
    if request.output_type == "latent":
        raise refused(
            "output_type", "is 'latent', but outpaint makes its result from pixels", "'pil' or 'np'"
        )
    height, width = request.image[0].shape[:2]
    _set(request, "outpaint", parse_growth(request.outpaint, width, height))


def _check_seed(request: DerivedSettings) -> None:
    seed = request.seed.tolist() if isinstance(request.seed, np.ndarray) else request.seed
    if not isinstance(seed, (list, tuple)):
        _set(request, "seed", settled_seed("seed", seed))
        return
    if len(seed) != request.num_images:
        raise refused(
            "seed", f"is {brief(seed)}, for {request.num_images} images", "one seed, or one for each image"
        )
    seeds = tuple(settled_seed("seed", one) for one in seed)
    # Seeds that count up are the usual case, and then the request says so.
    counted = seeds == seeds_from(seeds[0], len(seeds))
    _set(request, "seed", seeds[0] if counted else seeds)


def no_steps(name: str, strength: float, steps: int) -> RequestError:
    """The error for a strength that runs none of `steps` steps."""
    least = f"{1 / steps:.2g}"
    return refused(
        name, f"is {strength:g}, so none of the {steps} steps would run", f"at least {least}, or more steps"
    )
