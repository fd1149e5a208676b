"""Fit a request to a model: fill in the model's defaults, and check that the model can make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdrt.common.messages import wrong_value
from sdrt.errors import RequestError
from sdrt.families import T2IAdapterSpec
from sdrt.request.bounds import MAX_SIZE, MAX_TILED_SIZE
from sdrt.request.checks import check_shape
from sdrt.request.clip_skip import SkipOfLabel
from sdrt.request.controls import fit_controls, settings_of_controls
from sdrt.request.defaults import default_strength, defaults_of, zeroes_negative
from sdrt.request.fitted import FittedRequest
from sdrt.request.given_embeds import check_embeds, check_text_encoder
from sdrt.request.image_prompts import fit_image_prompts, settings_of_image_prompts
from sdrt.request.model_defaults import runs_all_steps
from sdrt.request.request import Request
from sdrt.request.setting import settings_of
from sdrt.request.size_conditions import check_size_conditions
from sdrt.request.validation import no_steps
from sdrt.tasks.hires import enlarged_size

if TYPE_CHECKING:
    from sdrt.families import Task
    from sdrt.families.capabilities import Capabilities

__all__ = ["fit", "rounded_size"]


def fit(request: Request, capabilities: Capabilities, *, is_distilled: bool = False) -> FittedRequest:
    """Fill in the model's defaults, and check that the model can make the request. Raises `RequestError`.

    `is_distilled` says whether the scheduler chooses its steps among those that a model was distilled on. Then the
    model's own timesteps and its reading of the strength count.
    """
    _check_ignored(request, capabilities)
    _check_task(request, capabilities)
    height, width = _image_size(request, capabilities)
    fitted = _completed(request, height, width, capabilities, is_distilled)
    _check_steps(fitted)
    _check_tiles(request, capabilities)
    for name, size in (("height", height), ("width", width)):
        _check_size(request, name, size, capabilities)
    check_text_encoder(fitted, capabilities)
    factor, channels = capabilities.vae_scale_factor, capabilities.latent_channels
    check_shape("latents", request.latents, (request.num_images, channels, height // factor, width // factor))
    check_embeds(fitted, capabilities)
    check_size_conditions(fitted)
    if request.hires_scale is not None:
        sizes = enlarged_size(height, width, request.hires_scale, capabilities.size_step)
        for name, size in zip(("height", "width"), sizes, strict=True):
            _check_size(request, "hires_scale", size, capabilities, f"{name} with hires_scale")
    return fitted


def _completed(
    request: Request, height: int, width: int, capabilities: Capabilities, is_distilled: bool
) -> FittedRequest:
    """Fill in every default."""
    values = defaults_of(request, capabilities, is_distilled)
    if isinstance(request.clip_skip, SkipOfLabel):
        values["clip_skip"] = request.clip_skip.from_layer(capabilities.layer)
    # The size of an outpainting follows from its image and its borders, so that both may be replaced.
    size = {} if request.outpaint is not None else {"height": height, "width": width}
    controls = fit_controls(request, capabilities)
    values |= settings_of_controls(controls)
    image_prompts = fit_image_prompts(request, capabilities)
    values |= settings_of_image_prompts(image_prompts)
    completed = object.__new__(Request)
    completed.__dict__.update(vars(request) | values | size)
    overlap = request.tile_overlap
    decided = {
        "height": height,
        "width": width,
        "strength": _strength(request, capabilities),
        "hires_steps": request.hires_steps or values["num_inference_steps"],
        "guidance_width": capabilities.guidance_width,
        "controls": controls,
        # Without any effect, the model's usual graph makes the image, so that it is the same bit for bit.
        "image_prompts": image_prompts if any(any(one.scales) for one in image_prompts) else (),
        "runs_all_steps": is_distilled and runs_all_steps(request, values["timesteps"], capabilities),
        "zero_negative": zeroes_negative(request, capabilities),
        "tile_overlap": (request.tile_size or 0) // 4 if overlap is None else overlap,
    }
    settings = {row.name: getattr(completed, row.name) for row in settings_of(Request)}
    return FittedRequest(**settings | decided, completed=completed)


def _strength(request: Request, capabilities: Capabilities) -> float:
    """The strength that counts. It is 1 if the noise does not depend on it."""
    whole = request.image is None or request.denoising_start is not None
    return (
        1.0
        if whole or "strength" in capabilities.task.refuses
        else default_strength(request, capabilities.task)
    )


def _check_steps(request: FittedRequest) -> None:
    """Raise `RequestError` for a strength that runs no step."""
    if request.num_skipped_steps == request.num_inference_steps:
        raise no_steps("strength", request.strength, request.num_inference_steps)
    if request.hires_scale is not None and not request.num_hires_steps:
        raise no_steps("hires_strength", request.hires_strength, request.hires_steps)


def _check_ignored(request: Request, capabilities: Capabilities) -> None:
    """Raise `RequestError` for a setting that only other families have."""
    for name, reason in capabilities.ignored.items():
        if getattr(request, name) is not None:
            raise RequestError.advised(
                f"{name} has no effect: {reason}", f"leave {name} out", joint="; ", argument=name
            )


def _check_task(request: Request, capabilities: Capabilities) -> None:
    """Raise `RequestError` if the model is made for another task."""
    task = capabilities.task
    for name in task.refuses:
        if getattr(request, name) is not None:
            raise RequestError.advised(
                f"{name} has no effect: this model is made for {task.name}",
                f"leave {name} out",
                joint="; ",
                argument=name,
            )
    given = {name for name in task.needs if getattr(request, name) is not None}
    if request.outpaint is not None:
        given.add("mask_image")
    if missing := [name for name in task.needs if name not in given]:
        raise RequestError.advised(
            f"this model is made for {task.name}",
            f"give {' and '.join(missing)}",
            joint="; ",
            argument=missing[0],
        )
    upscaler = request.hires_upscaler
    if request.hires_scale is not None and upscaler != "latent" and not capabilities.has_vae_encoder:
        raise _no_encoder("hires_upscaler", f"hires_upscaler {upscaler!r}")
    if request.image is not None:
        _check_image(request, task, capabilities)


def _check_image(request: Request, task: Task, capabilities: Capabilities) -> None:
    if request.image_is_latents:
        if task.needs:
            raise RequestError.advised(
                f"image contains latents, but this model is made for {task.name} and needs pixels",
                "give an image in pixels",
                joint="; ",
                argument="image",
            )
        check_shape("image", request.image.array, (None, capabilities.latent_channels, None, None))
    elif not task.has_noise_level and not capabilities.has_vae_encoder:
        raise _no_encoder("image", "an image prompt")


def rounded_size(height: int, width: int, capabilities: Capabilities) -> tuple[int, int]:
    """The largest size in pixels that the model can make and that is not larger than this one, or its smallest."""
    step = capabilities.size_step
    return max(step, height // step * step), max(step, width // step * step)


def _image_size(request: Request, capabilities: Capabilities) -> tuple[int, int]:
    """Height and width of the result, in pixels.

    These are the request's `height` and `width`. If they are missing, they come from the image, else from the control
    image, else from the latents, else from the model.
    """
    height, width = capabilities.default_height, capabilities.default_width
    if request.image is not None and request.padding_mask_crop is None:
        if request.image_is_latents:
            height, width = (size * capabilities.vae_scale_factor for size in request.image.array.shape[2:])
            if (request.height or height, request.width or width) != (height, width):
                raise RequestError.advised(
                    f"image has latents of {width}x{height} pixels",
                    "leave out height and width, or give this size",
                    joint="; ",
                    argument="width" if request.height in (None, height) else "height",
                )
            return height, width
        height, width = request.image[0].shape[:2]
        if capabilities.task.has_noise_level:
            height, width = height * capabilities.vae_scale_factor, width * capabilities.vae_scale_factor
        if request.outpaint is not None:
            width, height = request.outpaint.of(width, height)
        height, width = rounded_size(height, width, capabilities)
    elif request.image is None and request.control_image is not None:
        first = request.control_image[0]
        height, width = (first[0] if isinstance(first, tuple) else first).shape[:2]
        height, width = rounded_size(height, width, capabilities)
        # As in diffusers, the size also suits the T2I-Adapters.
        step = max([one.factor for one in capabilities.controlnets if isinstance(one, T2IAdapterSpec)] or [1])
        height, width = (max(side - side % step, step) for side in (height, width))
    elif request.latents is not None and request.height is None and request.width is None:
        height, width = (size * capabilities.vae_scale_factor for size in request.latents.shape[2:])
    return request.height or height, request.width or width


def _check_size(
    request: Request, argument: str, size: int, capabilities: Capabilities, shown: str = ""
) -> None:
    """Raise `RequestError` for a size that the model cannot make. Messages call it `shown`."""
    _check_step(argument, size, capabilities, shown)
    most = request.max_size or (MAX_SIZE if request.tile_size is None else MAX_TILED_SIZE)
    if size > most:
        reason = "" if request.tile_size else ", because time grows with its fourth power; use tile_size, or"
        raise RequestError.expected(
            f"{shown or argument} is {size}",
            f"at most {most}{reason or ';'} allow more with max_size={size} (--max-size {size})",
            argument=argument,
        )


def _check_tiles(request: Request, capabilities: Capabilities) -> None:
    if request.tile_size is None:
        return
    _check_step("tile_size", request.tile_size, capabilities)
    most = request.max_size or MAX_SIZE
    if request.tile_size > most:
        raise wrong_value("tile_size", request.tile_size, f"at most {most}, or allow more with max_size")
    if request.guidance_rescale:
        fits = "at most one of tile_size and guidance_rescale"
        raise RequestError(
            f"expected {fits}: guidance_rescale needs the whole image at once",
            argument="guidance_rescale",
            fits=fits,
        )
    if request.tile_overlap is not None:
        _check_step("tile_overlap", request.tile_overlap, capabilities)
    if request.tile_overlap is not None and request.tile_overlap > request.tile_size // 2:
        raise wrong_value(
            "tile_overlap", request.tile_overlap, f"at most {request.tile_size // 2}, half of tile_size"
        )


def _no_encoder(argument: str, what: str) -> RequestError:
    return RequestError.advised(
        f"{what} needs a VAE encoder, and this model has no vae_encoder",
        "export the checkpoint again with sdrt export",
        joint="; ",
        argument=argument,
    )


def _check_step(argument: str, size: int, capabilities: Capabilities, shown: str = "") -> None:
    step = capabilities.vae_scale_factor
    if size % step:
        below = max(step, size // step * step)
        raise RequestError.expected(
            f"{shown or argument} is {size}",
            f"a multiple of {step}, such as {below} or {below + step}",
            argument=argument,
        )
    if size % capabilities.size_step:
        again = f"export the checkpoint again with sdrt export to use any multiple of {step}"
        fits = f"a multiple of {capabilities.size_step}; {again}"
        raise RequestError(
            f"{shown or argument} is {size}: another program exported this model, so expected {fits}",
            argument=argument,
            fits=fits,
        )
