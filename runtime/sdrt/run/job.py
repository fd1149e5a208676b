"""The parts of a pass, and its work before the first step: text embeddings and latents."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sdrt.common import rng
from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError, UnsupportedModelError
from sdrt.families.capabilities import Capabilities
from sdrt.onnx.error_messages import images_failure
from sdrt.request.fitted import FittedRequest
from sdrt.run.conditioning import Conditioning
from sdrt.run.guidance import unused_guidance
from sdrt.run.image_prompts import image_tokens
from sdrt.run.memory import ComponentCache
from sdrt.run.origin import Origin
from sdrt.run.preparation import Preparation, Prepared
from sdrt.run.refiner import Takeover
from sdrt.schedulers import DiscreteNoiseSchedule, Plan, Scheduler, resolve_scheduler

if TYPE_CHECKING:
    from sdrt.model_folder.model import Model
    from sdrt.run.components import LoadedComponents
    from sdrt.run.safety_checker import SafetyChecker

__all__ = ["Pass", "Timings", "encode", "make_room", "memory_error", "prepare", "timed"]

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
        takeover: the refiner that takes over in the middle, if there is one.
        first: the components of the first model, in the refiner's part of the pass.
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
    takeover: Takeover | None = None
    first: ComponentCache | None = None

    @property
    def model(self) -> Model:
        """The model folder, with its family and configs."""
        return self.cache.model

    @property
    def checks_images(self) -> bool:
        """Whether a safety checker looks at the images: the model's, or the first model's after a refiner without."""
        return self.request.safety_checker and self._checking.model.has_safety_checker

    @property
    def checking_name(self) -> str:
        """The name of the model whose safety checker looks at the images."""
        return self._checking.model.name

    def safety_checker(self, components: LoadedComponents) -> SafetyChecker:
        """What looks at the images. `components` are those that decode them."""
        cache = self._checking
        return (components if cache is self.cache else cache.current or cache.get()).safety_checker

    @property
    def _checking(self) -> ComponentCache:
        return self.cache if self.first is None or self.model.has_safety_checker else self.first

    @property
    def capabilities(self) -> Capabilities:
        """The sizes, inputs and task that the model supports."""
        return self.model.capabilities

    def refined(self) -> Pass:
        """The part of the pass that the refiner makes."""
        assert self.takeover is not None
        request, cache = self.takeover.request(self.request), self.takeover.refiner.cache
        return replace(
            self,
            request=request,
            plan=self.takeover.plan,
            cache=cache,
            components=cache.for_request(request),
            first=self.cache,
        )

    def free(self) -> None:
        """Free the model, unless it is also its own refiner."""
        if self.takeover is None or self.takeover.refiner.cache is not self.cache:
            self.cache.free()


def encode(job: Pass) -> Conditioning:
    """Turn the prompts into text embeddings for every step, and image prompts into tokens."""
    with timed(job.timings, "text_encoder"):
        conditioning = Conditioning.of(
            job.request, job.model.family, job.components.text_encoder, job.components.words
        )
    if job.request.image_prompts:
        with timed(job.timings, "image_encoder"):
            tokens = image_tokens(job.components, job.request, conditioning)
        conditioning = replace(conditioning, image_tokens=tokens)
    for message in [] if conditioning.guided else unused_guidance(job.request):
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


def make_room(job: Pass, error: Exception) -> bool:
    """Free memory that ran out, and use `low_vram` from now on. Tell whether `job` should be tried again."""
    freed = False
    if job.first is not None and job.first is not job.cache and job.first.config.low_vram is None:
        freed = job.first.free()
    return job.cache.switch_to_low_vram(job.request, memory_error(error)) or freed


def memory_error(error: Exception) -> OutOfMemoryError:
    """Return a component's error as it is. Another library's error becomes an `OutOfMemoryError`."""
    return error if isinstance(error, OutOfMemoryError) else images_failure(error)


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
    """Add the seconds that the block takes to `timings[name]`."""
    began = time.perf_counter()
    yield
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - began
