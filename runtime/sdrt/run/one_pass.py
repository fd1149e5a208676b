"""One pass of a request through the model, on one page: encode → prepare → denoise → decode."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common import rng
from sdrt.common.notices import Notices
from sdrt.errors import ComponentError, UnsupportedModelError
from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import to_pil
from sdrt.request.fitted import FittedRequest
from sdrt.run.conditioning import Conditioning
from sdrt.run.denoiser import Denoiser
from sdrt.run.preparation import Preparation, Prepared
from sdrt.run.result import GenerationStep
from sdrt.schedulers import DiscreteNoiseSchedule, Plan, Scheduler, resolve_scheduler
from sdrt.tasks.inpainting import Canvas
from sdrt.tasks.windows import Windows

if TYPE_CHECKING:
    from sdrt.model_folder.folder import ModelFolder
    from sdrt.onnx.buffers import Bound
    from sdrt.run.components import Components

__all__ = ["Pass", "decode", "denoise", "encode", "prepare"]

Array = NDArray[np.float32]
Timings = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """What a pass works with.

    Attributes:
        request: what to make.
        scheduler, plan: how, and the noise levels that it visits.
        model: its family and configs.
        components: the sessions.
        generators: the noise of each image.
        timings: receives what each part took, in seconds.
    """

    request: FittedRequest
    scheduler: Scheduler
    plan: Plan
    model: ModelFolder
    components: Components
    notices: Notices
    generators: list[rng.Generator]
    timings: Timings = field(default_factory=dict)

    @property
    def capabilities(self) -> Capabilities:
        """What the model can serve."""
        return self.model.capabilities


def encode(job: Pass) -> Conditioning:
    """Turn the prompts into embeddings for every step."""
    with timed(job.timings, "text_encoder"):
        return Conditioning.of(job.request, job.model.family, job.components.text_encoder)


def prepare(job: Pass) -> Prepared:
    """Draw the first latents: noise, and the image that the user gave."""
    preparation = Preparation(
        request=job.request,
        plan=job.plan,
        generators=job.generators,
        capabilities=job.capabilities,
        encoder=lambda: job.components.vae_encoder,
        low_res_noise=lambda level: _low_res_noise(job.model, level),
    )
    if job.request.image is None:
        return preparation.run()
    with timed(job.timings, "vae_encoder"):
        return preparation.run()


def denoise(
    job: Pass, conditioning: Conditioning, prepared: Prepared
) -> Generator[GenerationStep, None, Array]:
    """Yield each step; return the clean latents [N, C, h, w]."""
    component, spec, plan = job.components.denoiser, job.model.family.denoiser, job.plan
    labels = _labels(job, conditioning, prepared)
    inputs = conditioning.at(0) | labels
    windows = _windows(job.request, job.capabilities)
    with component.bound(_shapes(job, prepared, inputs, windows), (spec.output,)) as run:
        denoiser = _denoiser(job, conditioning, prepared, run, windows)
        denoiser.condition(inputs)
        # By its role, as the others: the same in every family.
        job.timings["unet"] = denoiser.seconds
        for step in job.scheduler.sample(
            denoiser, prepared.x, plan, noise=lambda: _noise(job, prepared), eta=job.request.eta
        ):
            if prepared.known is not None:
                prepared.known.hold(step.x, step.sigma, plan, last=step.last)
            event = GenerationStep(step, plan, denoiser, inputs, spec.embeds, job.request.num_images)
            try:
                yield event
            finally:
                event.end()
            here, following = plan.step_of(step.index), plan.step_of(step.index + 1)
            if not step.last and conditioning.changes(here, following):
                inputs = conditioning.at(following) | labels
                denoiser.condition(inputs)
    return event.latents


def decode(job: Pass, components: Components, latents: Array, canvases: Sequence[Canvas]) -> Any:
    """Turn latents into images, one at a time; what was made under a mask goes into the image that was given."""
    request, name = job.request, job.model.family.denoiser.component
    if not np.isfinite(latents).all():
        raise ComponentError(
            f"{name}: the latents are not finite: the graph overflows or is damaged; export it again",
            component=name,
        )
    if request.output_type == "latent":
        return latents
    with timed(job.timings, "vae_decoder"):
        images = [components.vae_decoder(one) for one in latents]
        if request.composite and canvases:
            images = [canvas.composite(made) for canvas, made in zip(canvases, images, strict=True)]
    return np.stack(images) if request.output_type == "np" else [to_pil(image) for image in images]


def _denoiser(
    job: Pass, conditioning: Conditioning, prepared: Prepared, run: Bound, windows: Windows | None
) -> Denoiser:
    beside = prepared.beside
    return Denoiser(
        job.components.denoiser,
        run,
        job.model.family.denoiser,
        job.plan,
        batch=conditioning.batch,
        schedule=job.scheduler.noise_schedule,
        owners=conditioning.owners,
        weights=conditioning.weights,
        scale=job.request.guidance_scale,
        rescale=job.request.guidance_rescale,
        notices=job.notices,
        beside=None if beside is None else conditioning.over_batch(beside, blank=prepared.blank),
        windows=windows,
    )


def _labels(job: Pass, conditioning: Conditioning, prepared: Prepared) -> dict[str, NDArray[Any]]:
    """The class label of every row, for a denoiser that takes one."""
    name = job.model.family.denoiser.labels
    if prepared.labels is None:
        return {}
    return {name: np.full(conditioning.batch, prepared.labels, job.components.denoiser.inputs[name].dtype)}


def _shapes(
    job: Pass, prepared: Prepared, inputs: Mapping[str, NDArray[Any]], windows: Windows | None
) -> dict[str, tuple[int, ...]]:
    """The shapes of the denoiser's inputs, of which `inputs` are [batch, …]."""
    spec, taken = job.model.family.denoiser, job.components.denoiser.inputs
    _, channels, *size = prepared.x.shape
    if prepared.beside is not None:
        channels += prepared.beside.shape[1]
    # With little memory, one row after another.
    rows = 1 if job.components.low_vram else len(inputs[spec.embeds])
    shapes = {
        spec.sample: (rows, channels, *(size if windows is None else windows.size)),
        spec.timestep: tuple(1 for _ in taken[spec.timestep].shape),
        **{name: (rows, *array.shape[1:]) for name, array in inputs.items()},
    }
    return {name: shapes[name] for name in taken}


def _noise(job: Pass, prepared: Prepared) -> Array:
    """The noise of a step that adds some: each image's comes from its own generator."""
    return np.stack([generator.randn(prepared.x.shape[1:]) for generator in job.generators])


def _low_res_noise(model: ModelFolder, level: int) -> tuple[float, float]:
    """√ᾱ and √(1 − ᾱ) of the noise that an upscaling model's small image gets."""
    scheduler = resolve_scheduler(None, model.low_res_scheduler_config)
    schedule = scheduler.noise_schedule
    if not isinstance(schedule, DiscreteNoiseSchedule):
        raise UnsupportedModelError(
            f"low_res_scheduler/scheduler_config.json: _class_name is {scheduler.sampler.class_name!r}; expected a "
            "class of models trained on betas, such as 'DDPMScheduler': correct the file"
        )
    alpha = schedule.alphas_cumprod[level]
    return float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))


def _windows(request: FittedRequest, capabilities: Capabilities) -> Windows | None:
    """The windows in which the denoiser sees the latents; None if it sees them whole."""
    if request.tile_size is None or max(request.size) <= request.tile_size:
        return None
    factor = capabilities.vae_scale_factor
    overlap = request.tile_size // 4 if request.tile_overlap is None else request.tile_overlap
    return Windows.of(
        request.height // factor,
        request.width // factor,
        side=request.tile_size // factor,
        overlap=overlap // factor,
    )


@contextmanager
def timed(timings: Timings, name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - began
