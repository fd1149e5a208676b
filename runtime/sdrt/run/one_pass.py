"""One pass through the model, from a prompt to images: encode → prepare → denoise → decode."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common import rng
from sdrt.common.notices import Notices
from sdrt.errors import ComponentError, OutOfMemoryError, RunCancelledError, UnsupportedModelError
from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import to_pil
from sdrt.onnx.error_messages import images_failure
from sdrt.request.fitted import FittedRequest
from sdrt.run.conditioning import Conditioning
from sdrt.run.denoiser import bound_denoiser
from sdrt.run.guidance import unused_negative_prompt
from sdrt.run.memory import ComponentCache
from sdrt.run.origin import Origin
from sdrt.run.preparation import Preparation, Prepared
from sdrt.run.result import Events, GenerationStep, StableDiffusionPipelineOutput
from sdrt.schedulers import DiscreteNoiseSchedule, Plan, Scheduler, resolve_scheduler
from sdrt.tasks.inpainting import Canvas

if TYPE_CHECKING:
    from sdrt.model_folder.model import Model
    from sdrt.run.components import LoadedComponents

__all__ = ["Pass", "Timings", "decode", "denoise", "encode", "memory_error", "prepare", "run_pass"]

Array = NDArray[np.float32]
Timings = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """The request of a pass, and everything that the pass uses.

    Attributes:
        request: the request, completed by `fit`.
        scheduler: the sampler and its noise schedule.
        plan: the noise levels that the pass visits.
        cache: the model and its components in memory.
        components: the components that the pass uses.
        notices: receives messages for the user.
        generators: the source of noise for each image.
        timings: receives the seconds that each component took.
        origin: the model and the settings, which the result keeps for its metadata.
    """

    request: FittedRequest
    scheduler: Scheduler
    plan: Plan
    cache: ComponentCache
    components: LoadedComponents
    notices: Notices
    generators: list[rng.Generator]
    timings: Timings = field(default_factory=dict)
    origin: Origin | None = None

    @property
    def model(self) -> Model:
        """The model folder, with its family and configs."""
        return self.cache.model

    @property
    def capabilities(self) -> Capabilities:
        """The sizes, inputs and task that the model supports."""
        return self.model.capabilities


def run_pass(job: Pass) -> Events:
    """Make the images of one pass. Yield each step, then the result."""
    conditioning = encode(job)
    prepared = prepare(job)
    latents = yield from denoise(job, conditioning, prepared)
    images = decode(job, latents, prepared.canvases)
    yield StableDiffusionPipelineOutput(
        images=images,
        seeds=list(job.request.seeds),
        request=job.request.completed,
        timings=job.timings,
        origin=job.origin,
    )


def encode(job: Pass) -> Conditioning:
    """Turn the prompts into text embeddings for every step."""
    with timed(job.timings, "text_encoder"):
        conditioning = Conditioning.of(
            job.request, job.model.family, job.components.text_encoder, job.components.words
        )
    if not conditioning.guided and (message := unused_negative_prompt(job.request)):
        job.notices.warn(message)
    return conditioning


def prepare(job: Pass) -> Prepared:
    """Make the latents of the first step, from noise and the image that the user gave, if any."""
    preparation = Preparation(
        request=job.request,
        plan=job.plan,
        generators=job.generators,
        capabilities=job.capabilities,
        encoder=lambda: job.components.vae_encoder,
        notices=job.notices,
        low_res_noise=lambda level: _low_res_noise(job.model, level),
    )
    if job.request.image is None:
        return preparation.run()
    with timed(job.timings, "vae_encoder"):
        return preparation.run()


def denoise(
    job: Pass, conditioning: Conditioning, prepared: Prepared
) -> Generator[GenerationStep, None, Array]:
    """Yield each step. Return the clean latents [N, C, h, w]."""
    plan, spec = job.plan, job.model.family.denoiser
    inputs = conditioning.at(0)
    with bound_denoiser(
        job.components,
        spec,
        job.request,
        plan,
        conditioning,
        prepared,
        factor=job.capabilities.vae_scale_factor,
        notices=job.notices,
        sampler=job.scheduler.sampler,
    ) as denoiser:
        denoiser.condition(inputs)
        # Timings call the denoiser "unet" in every family.
        job.timings["unet"] = denoiser.seconds
        for step in job.scheduler.sample(
            denoiser,
            prepared.x,
            plan,
            noise=lambda: _noise(job, prepared),
            eta=job.request.eta,
            unconditional=(lambda: denoiser.unconditional) if conditioning.guided else None,
        ):
            if prepared.known_region is not None:
                prepared.known_region.restore(step.x, step.sigma, plan, last=step.last)
            event = GenerationStep(step, plan, denoiser, inputs, spec.embeds, job.request.num_images)
            try:
                yield event
            finally:
                event.end()
            # The prompt may change between steps, but not between two evaluations of one step.
            if not step.last and conditioning.changes(step.number, step.following):
                inputs = conditioning.at(step.following)
                denoiser.condition(inputs)
    return event.latents


def decode(job: Pass, latents: Array, canvases: Sequence[Canvas]) -> Any:
    """Turn latents into images. If memory runs out, decode again with `low_vram`, so that the steps are not lost."""
    try:
        return _decode_with(job.components, job, latents, canvases)
    except MemoryError as error:
        if not job.cache.switch_to_low_vram(job.request, memory_error(error)):
            raise
    # Not inside `except`: the error's traceback would keep the old sessions in memory.
    return _decode_with(job.cache.for_request(job.request), job, latents, canvases)


def memory_error(error: Exception) -> OutOfMemoryError:
    """Return a component's error as it is. Another library's error becomes an `OutOfMemoryError`."""
    return error if isinstance(error, OutOfMemoryError) else images_failure(error)


def _decode_with(components: LoadedComponents, job: Pass, latents: Array, canvases: Sequence[Canvas]) -> Any:
    """Decode one image at a time. With `composite`, put each repainted part into the image that the user gave."""
    request, name = job.request, job.model.family.denoiser.component
    if not np.isfinite(latents).all():
        raise ComponentError(
            f"{name}: the latents are not finite: the graph overflows or is damaged, so export the model again",
            component=name,
        )
    if request.output_type == "latent":
        return latents
    made: list[Array] = []
    try:
        with timed(job.timings, "vae_decoder"):
            for index, one in enumerate(latents):
                image = components.vae_decoder(one)
                made.append(canvases[index].composite(image) if request.composite and canvases else image)
    except RunCancelledError as error:
        error.images = made if request.output_type == "np" else [to_pil(image) for image in made]
        raise
    return np.stack(made) if request.output_type == "np" else [to_pil(image) for image in made]


def _noise(job: Pass, prepared: Prepared) -> Array:
    """Draw the noise [N, C, h, w] that some samplers add in a step. Each image has its own generator."""
    return np.stack([generator.randn(prepared.x.shape[1:]) for generator in job.generators])


def _low_res_noise(model: Model, level: int) -> tuple[float, float]:
    """Return √ᾱ and √(1 − ᾱ) for the noise that is added to an upscaling model's small image."""
    scheduler = resolve_scheduler(None, model.low_res_scheduler_config)
    schedule = scheduler.noise_schedule
    if not isinstance(schedule, DiscreteNoiseSchedule):
        raise UnsupportedModelError(
            f"low_res_scheduler/scheduler_config.json: _class_name is {scheduler.sampler.class_name!r}, expected a "
            "scheduler with betas, such as 'DDPMScheduler': correct the file",
            component="low_res_scheduler",
            path=model.path / "low_res_scheduler",
            fits="a scheduler with betas, such as 'DDPMScheduler'",
        )
    alpha = schedule.alphas_cumprod[level]
    return float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))


@contextmanager
def timed(timings: Timings, name: str) -> Iterator[None]:
    """Record the seconds that the block takes as `timings[name]`."""
    began = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - began
