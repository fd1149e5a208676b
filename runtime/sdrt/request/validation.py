"""The checks of a request, made once, when it is constructed.

Each check replaces a value by what it stands for: an image by its pixels, a number by one of Python's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.images.reading import checked_count, read_images, read_masks
from sdrt.request.bounds import HIRES_UPSCALERS, MAX_PICTURES, MAX_STEPS, OUTPUT_TYPES, PROMPT_SYNTAXES
from sdrt.request.checks import as_given, check_text, integer, numbers, real, tensor
from sdrt.tasks.hires import Latents
from sdrt.tasks.outpainting import Growth, parse_growth

if TYPE_CHECKING:
    from sdrt.request.request import Request

__all__ = ["no_steps", "validate"]

_ONLY_WITH: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("hires_scale",): ("hires_strength", "hires_steps", "hires_upscaler"),
    ("mask_image", "outpaint"): ("mask_blur", "composite"),
    ("tile_size",): ("tile_overlap",),
}

_CHOICES = {
    "output_type": OUTPUT_TYPES,
    "prompt_syntax": PROMPT_SYNTAXES,
    "hires_upscaler": HIRES_UPSCALERS,
}
_OF_IMAGES = (
    "strength",
    "mask_image",
    "padding_mask_crop",
    "outpaint",
    "image_guidance_scale",
    "noise_level",
)


def validate(request: Request) -> None:
    """Check every value of `request`, which is under construction. Raises `RequestError`."""
    for name in ("latents", "prompt_embeds", "negative_prompt_embeds"):
        _set(request, name, tensor(name, getattr(request, name), rank=4 if name == "latents" else 3))
    _check_prompts(request)
    _check_levels(request)
    _set(
        request,
        "num_inference_steps",
        integer("num_inference_steps", request.num_inference_steps, 1, MAX_STEPS),
    )
    most = max(1, MAX_PICTURES // max(1, request.num_prompts))
    _set(
        request,
        "num_images_per_prompt",
        integer("num_images_per_prompt", request.num_images_per_prompt, 1, most),
    )
    if request.guidance_scale is not None:
        _set(request, "guidance_scale", real("guidance_scale", request.guidance_scale, -1e4, 1e4))
    _set(request, "guidance_rescale", as_given("guidance_rescale", request.guidance_rescale, 0.0, 1.0))
    _set(request, "eta", as_given("eta", request.eta, 0.0, 1.0))
    if request.image_guidance_scale is not None:
        scale = real("image_guidance_scale", request.image_guidance_scale, -1e4, 1e4)
        _set(request, "image_guidance_scale", scale)
    if request.noise_level is not None:
        _set(request, "noise_level", integer("noise_level", request.noise_level, 0, 10_000))
    _check_image(request)
    _check_unused(request)
    _check_hires(request)
    _check_sizes(request)
    if request.clip_skip is not None:
        _set(request, "clip_skip", integer("clip_skip", request.clip_skip, 0, 1000))
    for name, values in _CHOICES.items():
        value = getattr(request, name)
        if not isinstance(value, str) or value not in values:
            raise RequestError(f"{name} is {brief(value)}: expected one of {', '.join(values)}")
    _check_seed(request)


def _set(request: Request, name: str, value: Any) -> None:
    object.__setattr__(request, name, value)


def _check_prompts(request: Request) -> None:
    if (request.prompt is None) == (request.prompt_embeds is None):
        given = "neither" if request.prompt is None else "both"
        raise RequestError(f"expected either prompt or prompt_embeds, got {given}")
    if request.negative_prompt is not None and request.negative_prompt_embeds is not None:
        raise RequestError("expected at most one of negative_prompt and negative_prompt_embeds, got both")
    for name in ("prompt", "negative_prompt"):
        check_text(name, getattr(request, name))
    negative = request.negative_prompt
    if negative is not None and not isinstance(negative, str) and len(negative) != request.num_prompts:
        raise RequestError(
            f"negative_prompt has {len(negative)} texts for {request.num_prompts} prompts: "
            "give one each, or one text"
        )
    if request.num_prompts > MAX_PICTURES:
        raise RequestError(
            f"there are {request.num_prompts} prompts: expected at most {MAX_PICTURES} in a call"
        )


def _check_levels(request: Request) -> None:
    """Of `timesteps` or `sigmas`, which say how many steps there are."""
    if request.timesteps is not None:
        _set(request, "timesteps", numbers("timesteps", request.timesteps, MAX_STEPS, integer, 0, 10**6))
        _set(request, "num_inference_steps", len(request.timesteps))
    if request.sigmas is not None:
        _set(request, "sigmas", numbers("sigmas", request.sigmas, MAX_STEPS + 1, as_given, 0.0, 1e6))
        _set(request, "num_inference_steps", max(1, len(request.sigmas) - 1))
    for name in ("timesteps", "sigmas"):
        if getattr(request, name) is not None and request.hires_steps is not None:
            raise RequestError(f"expected at most one of {name} and hires_steps, got both")


def _check_image(request: Request) -> None:
    if request.image is None:
        for name in _OF_IMAGES:
            if getattr(request, name) is not None:
                raise RequestError(
                    f"{name} is given without an image: give the image to begin from, or leave it out"
                )
        return
    if request.latents is not None:
        raise RequestError("expected at most one of image and latents, got both")
    if latents := _latents_given(request):
        for name in ("mask_image", "outpaint"):
            if getattr(request, name) is not None:
                raise RequestError(f"{name} needs pixels, and image is latents: give a picture")
        _set(request, "image", latents)
    else:
        pictures = read_images("image", request.image)
        _set(request, "image", checked_count("image", pictures, request.num_prompts))
    _check_mask(request)
    _check_outpaint(request)
    if request.strength is not None:
        _set(request, "strength", real("strength", request.strength, 0.0, 1.0))
        _check_strength(request)


def _latents_given(request: Request) -> Latents | None:
    """`image` as latents [N, C, h, w], which diffusers takes in its place; None where it is none."""
    if isinstance(request.image, Latents):
        return request.image
    array = request.image
    if not isinstance(array, np.ndarray) or array.ndim != 4 or array.shape[-1] == 3:
        return None
    given = tensor("image", array, rank=4)
    assert given is not None  # as it is an array
    if len(given) not in (1, request.num_prompts):
        raise RequestError(
            f"image has latents of {len(given)} pictures for {request.num_prompts} prompts: give one each, or one"
        )
    return Latents(np.broadcast_to(given, (request.num_prompts, *given.shape[1:])))


def _check_unused(request: Request) -> None:
    """Refuse what would mean nothing without another setting."""
    for wanted, names in _ONLY_WITH.items():
        if all(getattr(request, one) is None for one in wanted):
            for name in names:
                if getattr(request, name) != getattr(type(request), name):
                    raise RequestError(
                        f"{name} is given without a {' or '.join(wanted)}: give one, or leave it out"
                    )


def _check_hires(request: Request) -> None:
    if request.hires_scale is None:
        return
    _set(request, "hires_scale", real("hires_scale", request.hires_scale, 1.0, 16.0))
    _set(request, "hires_strength", real("hires_strength", request.hires_strength, 0.0, 1.0))
    if request.hires_steps is not None:
        _set(request, "hires_steps", integer("hires_steps", request.hires_steps, 1, MAX_STEPS))
    if not request.num_hires_steps:
        raise no_steps(
            "hires_strength", request.hires_strength, request.hires_steps or request.num_inference_steps
        )
    if request.image is not None:
        raise RequestError(
            "hires_scale is for pictures that are made from text: with an image, give the height and width to make"
        )


def _check_sizes(request: Request) -> None:
    for name in ("height", "width"):
        if getattr(request, name) is not None:
            _set(request, name, integer(name, getattr(request, name), 1, 2**31))
    for name, least in (("tile_size", 1), ("tile_overlap", 0)):
        if getattr(request, name) is not None:
            _set(request, name, integer(name, getattr(request, name), least, 2**20))
    if request.max_size is not None:
        _set(request, "max_size", integer("max_size", request.max_size, 1, 2**20))


def _check_strength(request: Request) -> None:
    if request.num_skipped_steps == request.num_inference_steps:
        raise no_steps("strength", request.usual_strength, request.num_inference_steps)


def _check_mask(request: Request) -> None:
    _set(request, "mask_blur", as_given("mask_blur", request.mask_blur, 0.0, 1000.0))
    if not isinstance(request.composite, bool):
        raise RequestError(f"composite is {brief(request.composite)}: expected True or False")
    if request.padding_mask_crop is not None:
        _set(request, "padding_mask_crop", integer("padding_mask_crop", request.padding_mask_crop, 0, 2**16))
        if request.mask_image is None:
            raise RequestError(
                "padding_mask_crop is given without a mask_image: give the mask, or leave it out"
            )
    if request.mask_image is None:
        return
    masks = checked_count("mask_image", read_masks("mask_image", request.mask_image), request.num_prompts)
    (height, width), (tall, wide) = masks[0].shape, request.image[0].shape[:2]
    if (height, width) != (tall, wide):
        raise RequestError(
            f"mask_image is {width}x{height} and image {wide}x{tall} pixels: expected one size"
        )
    _set(request, "mask_image", masks)


def _check_outpaint(request: Request) -> None:
    if request.outpaint is None:
        return
    # A request that was fitted has a size already.
    fitted = isinstance(request.outpaint, Growth)
    sizes = () if fitted else (("height", None), ("width", None))
    for name, usual in (("mask_image", None), *sizes, ("composite", True)):
        if getattr(request, name) != usual:
            raise RequestError(f"expected at most one of outpaint and {name}, got both")
    if request.output_type == "latent":
        raise RequestError(
            "output_type is 'latent', and outpaint puts pictures together: expected 'pil' or 'np'"
        )
    height, width = request.image[0].shape[:2]
    _set(request, "outpaint", parse_growth(request.outpaint, width, height))


def _check_seed(request: Request) -> None:
    if request.seed is None:
        _set(request, "seed", secrets.randbelow(request.last_seed + 1))
    else:
        _set(request, "seed", integer("seed", request.seed, 0, request.last_seed))


def no_steps(name: str, strength: float, steps: int) -> RequestError:
    """The error to raise for a share of `steps` that leaves none of them."""
    least = f"{1 / steps:.2g}"
    return RequestError(
        f"{name} is {strength:g}, which leaves none of {steps} steps: expected {least} at least, or more steps"
    )
