"""Tasks with several passes. The request of each pass is made from the images of the pass before it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.seeds import MAX_SEED
from sdrt.errors import RunCancelledError
from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import to_bytes, to_pil
from sdrt.images.reading import resized
from sdrt.request.fitted import FittedRequest
from sdrt.request.fitting import rounded_size
from sdrt.run.control_passes import on_canvas, one_per_image
from sdrt.run.refiner import Refiner, Takeover, takeover
from sdrt.run.result import Events, GenerationStep, StableDiffusionPipelineOutput
from sdrt.schedulers import Plan, Scheduler
from sdrt.tasks.hires import Latents, enlarged_latents, enlarged_size
from sdrt.tasks.outpainting import Growth, grown, passes

__all__ = ["PlannedPass", "grown_request", "growths", "last_part", "make_twice", "outpaint", "plan_passes"]

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Refining = tuple[Refiner, Mapping[str, Any]]
OnePass = Callable[[FittedRequest, "PlannedPass"], Events]
_SEED_OF_PASS = 1_000_003


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedPass:
    """A pass's scheduler, the noise levels that the pass visits, and the refiner that takes over, if any."""

    scheduler: Scheduler
    plan: Plan
    takeover: Takeover | None = None


def plan_passes(
    request: FittedRequest,
    scheduler: Scheduler,
    hires_scheduler: Scheduler | None = None,
    refining: Refining | None = None,
) -> list[PlannedPass]:
    """Plan each pass of a request.

    Args:
        request: the request, completed by `fit`.
        scheduler: the scheduler of every pass.
        hires_scheduler: that of the second pass of `hires_scale`, if it differs.
        refining: the refiner, and the settings that have other values for it.

    Raises:
        RequestError: the scheduler cannot take that many steps.
        UnsupportedModelError: the noise levels of the model's scheduler config are invalid.
    """
    plan = _plan(request, scheduler)
    hires = request.hires_scale is not None
    first = _planned(
        request, scheduler, plan, None if hires and request.hires_refiner == "second" else refining
    )
    if request.outpaint is not None:
        return [first] * len(growths(request))
    if not hires:
        return [first]
    other = hires_scheduler or scheduler
    plan = other.plan(request.hires_steps, skip=request.hires_steps - request.num_hires_steps)
    return [first, _planned(request, other, plan, None if request.hires_refiner == "first" else refining)]


def _planned(
    request: FittedRequest, scheduler: Scheduler, plan: Plan, refining: Refining | None
) -> PlannedPass:
    if refining is None:
        return PlannedPass(scheduler=scheduler, plan=plan)
    refiner, own = refining
    return PlannedPass(
        scheduler=scheduler, plan=plan, takeover=takeover(refiner, request, plan, scheduler, own)
    )


def _plan(request: FittedRequest, scheduler: Scheduler) -> Plan:
    """Plan a pass that runs all steps below the strength, or skips those above it."""
    steps, start, end = request.num_inference_steps, request.denoising_start, request.denoising_end
    if request.runs_all_steps and request.image is not None and start is None:
        return scheduler.plan(steps, strength=request.strength, end=end)
    return scheduler.plan(steps, skip=request.num_skipped_steps, start=start, end=end)


def growths(request: FittedRequest) -> list[Growth]:
    """Return the borders that each pass of an `outpaint` request adds."""
    height, width = request.image[0].shape[:2]
    return passes(request.outpaint, width, height)


def outpaint(
    request: FittedRequest, plans: Sequence[PlannedPass], one_pass: OnePass, capabilities: Capabilities
) -> Events:
    """Run one pass after another. Each pass paints a border around the images of the pass before it."""
    images = [image for image in request.image for _ in range(request.num_images_per_prompt)]
    timings: list[Mapping[str, Any]] = []
    skipped = 0
    for number, (growth, plan) in enumerate(zip(growths(request), plans, strict=True)):
        part = grown_request(request, images, growth, number, capabilities)
        if number + 1 < len(plans):
            part = replace(part, safety_checker=False)
        made = yield from _steps_of(one_pass(part, plan))
        images = [to_bytes(image) for image in made.images]
        timings.append(made.timings)
        skipped += made.skipped_calls
    yield StableDiffusionPipelineOutput(
        images=made.images if request.output_type == "np" else [to_pil(image) for image in made.images],
        seeds=list(request.seeds),
        nsfw_content_detected=made.nsfw_content_detected,
        request=request.completed,
        timings=_added(timings),
        origin=made.origin,
        skipped_calls=skipped,
    )


def make_twice(
    request: FittedRequest, plans: Sequence[PlannedPass], one_pass: OnePass, capabilities: Capabilities
) -> Events:
    """Make small images, then large images from them, for `hires_scale`."""
    kind = "latent" if request.hires_upscaler == "latent" else "np"
    # Only the result is checked.
    first = replace(request, output_type=kind, hires_scale=None, safety_checker=False)
    small = yield from _steps_of(one_pass(first, plans[0]))
    large = yield from _steps_of(one_pass(_enlarged(request, small.images, capabilities), plans[1]))
    skipped = small.skipped_calls + large.skipped_calls
    yield replace(large, timings=_added([small.timings, large.timings]), skipped_calls=skipped)


def _enlarged(request: FittedRequest, small: Sequence[Array], capabilities: Capabilities) -> FittedRequest:
    """Return the request of the second pass of `hires_scale`.

    `small` are the first pass's images [H, W, 3] in 0..1, or its latents [C, h, w] if they are enlarged as latents.
    """
    assert request.hires_scale is not None
    height, width = enlarged_size(*request.size, request.hires_scale, capabilities.size_step)
    if request.hires_upscaler == "latent":
        factor = capabilities.vae_scale_factor
        image: Any = Latents(
            np.stack([enlarged_latents(one, height // factor, width // factor) for one in small])
        )
    else:
        image = tuple(resized(to_bytes(one), height, width) for one in small)
    return replace(
        request,
        **_one_prompt_per_image(request),
        **one_per_image(request),
        image=image,
        strength=request.hires_strength,
        num_inference_steps=request.hires_steps,
        steps_before=request.num_inference_steps,
        height=height,
        width=width,
        latents=None,
        hires_scale=None,
        runs_all_steps=False,
    )


def grown_request(
    request: FittedRequest,
    images: Sequence[Image],
    growth: Growth,
    number: int,
    capabilities: Capabilities,
) -> FittedRequest:
    """Return the request of pass `number` of an outpainting. It paints the border `growth` around `images`."""
    canvases, masks = zip(*(grown(image, growth) for image in images), strict=True)
    tall, wide = canvases[0].shape[:2]
    height, width = rounded_size(tall, wide, capabilities)
    return replace(
        request,
        **_one_prompt_per_image(request),
        **on_canvas(request, growths(request), number),
        image=canvases,
        mask_image=masks,
        outpaint=growth,
        output_type="np",
        height=height,
        width=width,
        # Each pass has its own noise, because the same noise would draw the same things again.
        seed=tuple((seed + number * _SEED_OF_PASS) % (MAX_SEED + 1) for seed in request.seeds),
    )


def last_part(request: FittedRequest, capabilities: Capabilities) -> FittedRequest:
    """The last pass of an outpainting, around images of one colour. Its sizes and control images are right."""
    parts = growths(request)
    width, height = request.image[0].shape[1::-1]
    for part in parts[:-1]:
        width, height = part.of(width, height)
    images = [np.zeros((height, width, 3), np.uint8)] * request.num_images
    return grown_request(request, images, parts[-1], len(parts) - 1, capabilities)


def _one_prompt_per_image(request: FittedRequest) -> dict[str, Any]:
    """Return the prompt settings of a request in which every image has its own prompt."""
    repeats = request.num_images_per_prompt
    texts = {
        "prompt": request.prompts,
        "negative_prompt": request.negative_prompts,
        "prompt_2": request.prompts_2,
        "negative_prompt_2": request.negative_prompts_2,
    }
    repeated: dict[str, Any] = {
        name: [text for text in listed for _ in range(repeats)]
        for name, listed in texts.items()
        if getattr(request, name) is not None
    }
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        for given in (name, name.replace("prompt", "pooled_prompt")):
            if (array := getattr(request, given)) is not None:
                repeated[given] = np.repeat(array, repeats, axis=0)
    return repeated | {"num_images_per_prompt": 1}


def _steps_of(events: Events) -> Generator[GenerationStep, None, StableDiffusionPipelineOutput]:
    """Yield the steps of a pass before the last one. Return its result."""
    try:
        for event in events:
            if isinstance(event, StableDiffusionPipelineOutput):
                return event
            yield event
    except RunCancelledError as error:
        # Its images are not those that the call asked for.
        error.images = []
        raise
    raise AssertionError("a stream ends with its result")


def _added(timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the timings of several passes. The lists for the denoiser are joined."""
    total = dict(timings[0])
    for more in timings[1:]:
        total |= {name: total[name] + spent if name in total else spent for name, spent in more.items()}
    return total
