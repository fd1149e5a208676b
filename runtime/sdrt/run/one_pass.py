"""One pass through the model, from a prompt to images: encode → prepare → denoise → decode."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import ComponentError, RunCancelledError
from sdrt.images.arrays import to_pil
from sdrt.run.job import Pass, make_room, prepare, timed
from sdrt.run.preparation import Prepared
from sdrt.run.result import Events, GenerationStep, StableDiffusionPipelineOutput
from sdrt.run.turns import Turns
from sdrt.tasks.inpainting import Canvas

if TYPE_CHECKING:
    from sdrt.run.components import LoadedComponents

__all__ = ["decode", "denoise", "run_pass"]

Array = NDArray[np.float32]


def run_pass(job: Pass) -> Events:
    """Make the images of one pass. Yield each step, then the result."""
    turns = Turns(job)
    turns.encode()
    prepared = prepare(job)
    latents = yield from denoise(turns, prepared)
    images, flagged = decode(turns.job, latents, prepared.canvases)
    yield StableDiffusionPipelineOutput(
        images=images,
        nsfw_content_detected=flagged,
        seeds=list(job.request.seeds),
        request=job.request.completed,
        timings=job.timings,
        origin=job.origin,
        skipped_calls=turns.skipped_calls,
    )


def denoise(turns: Turns, prepared: Prepared) -> Generator[GenerationStep, None, Array]:
    """Yield each step. Return the clean latents [N, C, h, w]."""
    job = turns.job
    with closing(turns):
        turns.begin(prepared)
        for step in job.scheduler.sample(
            turns,
            prepared.x,
            job.plan,
            noise=lambda: _noise(job, prepared),
            eta=job.request.eta,
            unconditional=turns.unconditional if turns.guided else None,
        ):
            turns.restore(step)
            event = turns.event(step)
            try:
                yield event
            finally:
                event.end()
            turns.go_on(step, changed=event.changed)
    return event.latents


def decode(job: Pass, latents: Array, canvases: Sequence[Canvas]) -> tuple[Any, list[bool] | None]:
    """Turn latents into images, and say which of them the safety checker flagged; None if it did not look.

    If memory runs out, decode again with `low_vram`, so that the steps are not lost.
    """
    try:
        return _decode_with(job.components, job, latents, canvases)
    except MemoryError as error:
        if not make_room(job, error):
            raise
    # This is outside `except`, because the error's traceback would keep the old sessions in memory.
    return _decode_with(job.cache.for_request(job.request), job, latents, canvases)


def _decode_with(
    components: LoadedComponents, job: Pass, latents: Array, canvases: Sequence[Canvas]
) -> tuple[Any, list[bool] | None]:
    """Decode one image at a time. With `composite`, put each repainted part into the image that the user gave."""
    request, name = job.request, job.model.family.denoiser.component
    if not np.isfinite(latents).all():
        raise ComponentError(
            f"{name}: the latents are not finite: the graph overflows or is damaged, so export the model again",
            component=name,
        )
    if request.output_type == "latent":
        return latents, None
    decoded: list[Array] = []
    checks, composes = job.checks_images, request.composite and bool(canvases)

    def shown(image: Array, index: int) -> Array:
        return canvases[index].composite(image) if composes else image

    try:
        with timed(job.timings, "vae_decoder"):
            for one in latents:
                decoded.append(components.vae_decoder(one))
    except RunCancelledError as error:
        # Images that nothing has checked are not shown.
        kept = [] if checks else [shown(image, index) for index, image in enumerate(decoded)]
        error.images = _as_asked(kept, request.output_type)
        raise
    flagged = _flagged(components, job, decoded) if checks else None
    made = [shown(image, index) for index, image in enumerate(decoded)]
    if flagged is not None:
        made = [np.zeros_like(one) if bad else one for one, bad in zip(made, flagged, strict=True)]
    return (np.stack(made) if request.output_type == "np" else _as_asked(made, "pil")), flagged


def _as_asked(images: list[Array], output_type: str) -> list[Any]:
    """A list of images as the request's output type has them."""
    return list(images) if output_type == "np" else [to_pil(image) for image in images]


def _flagged(components: LoadedComponents, job: Pass, images: Sequence[Array]) -> list[bool]:
    """Which images [H, W, 3] the safety checker flags. It sees what the model made, as in diffusers."""
    with timed(job.timings, "safety_checker"):
        checker = job.safety_checker(components)
        found = [checker(image) for image in images]
    if any(found):
        numbers = ", ".join(str(index) for index, bad in enumerate(found, start=1) if bad)
        which = f"image {numbers} of {len(found)}" if len(found) > 1 else "the image"
        job.notices.warn(
            f"{which} may show what the safety checker of {job.checking_name} filters out, and is black: "
            "try another prompt or seed"
        )
    return found


def _noise(job: Pass, prepared: Prepared) -> Array:
    """Draw the noise [N, C, h, w] that some samplers add in a step. Each image has its own generator."""
    return np.stack([generator.randn(prepared.x.shape[1:]) for generator in job.generators])
