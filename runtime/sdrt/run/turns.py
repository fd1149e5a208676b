"""Chooses the model that denoises: the pass's own, or the refiner after it has taken over."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sdrt.common import rng
from sdrt.common.notices import Notices
from sdrt.run.conditioning import Conditioning
from sdrt.run.denoiser import Array, bound_denoiser
from sdrt.run.job import Pass, encode, make_room, prepare
from sdrt.run.preparation import Prepared
from sdrt.run.result import GenerationStep
from sdrt.schedulers import Step

if TYPE_CHECKING:
    from sdrt.run.denoiser import Denoiser

__all__ = ["Turns"]


class Turns:
    """The denoiser of a pass, `(x, sigma) → denoised`. It may change the model between two evaluations.

    Attributes:
        job: the pass, with the model that denoises now.
    """

    def __init__(self, job: Pass) -> None:
        self.job = job
        self._waiting = job.takeover
        self._open = ExitStack()
        self._conditioning: Conditioning | None = None
        self._prepared: Prepared | None = None
        self._denoiser: Denoiser | None = None
        self._inputs: dict[str, NDArray[Any]] = {}

    def encode(self) -> None:
        """Make the text embeddings of the model that begins. A refiner that begins makes them in `begin`."""
        if self._waiting is None or not self._waiting.begins_at_once:
            self._conditioning = encode(self.job)

    def begin(self, prepared: Prepared) -> None:
        """Open the model that makes the first step."""
        self._prepared = prepared
        if self._conditioning is None:
            self._take_over(0)
        else:
            self._enter(self._conditioning, prepared, 0)

    def __call__(self, x: Array, sigma: float) -> Array:
        """Estimate the clean latents [N, C, h, w] in `x`, which has the noise level `sigma`."""
        assert self._denoiser is not None  # between `begin` and `close`
        return self._denoiser(x, sigma)

    def unconditional(self) -> Array:
        """The estimate of the last call without the prompt."""
        assert self._denoiser is not None
        return self._denoiser.unconditional

    @property
    def guided(self) -> bool:
        """Whether the model estimates without the prompt too."""
        return self._conditioning is not None and self._conditioning.guided

    def restore(self, step: Step) -> None:
        """Put the known part of an image back into the state, for a model that has no input for a mask."""
        assert self._prepared is not None
        if (known := self._prepared.known_region) is not None:
            known.restore(step.x, step.sigma, self.job.plan, last=step.last)

    def event(self, step: Step) -> GenerationStep:
        """The event of a step, for the caller."""
        assert self._denoiser is not None
        job = self.job
        embeds = job.model.family.denoiser.embeds
        return GenerationStep(step, job.plan, self._denoiser, self._inputs, embeds, job.request.num_images)

    def go_on(self, step: Step) -> None:
        """Change the model or the prompt before the evaluation after `step`, if it has others."""
        if step.last:
            return
        assert self._conditioning is not None
        assert self._denoiser is not None
        if self._waiting is not None and self._waiting.begins_after(step):
            self._take_over(step.following)
        # The prompt may change between steps, but not between two evaluations of one step.
        elif self._conditioning.changes(step.number, step.following):
            self._inputs = self._conditioning.at(step.following)
            self._denoiser.condition(self._inputs)
        self._denoiser.begin(step.index + 1)

    def close(self) -> None:
        """Return the buffers and drop the graph, which must not stay in memory while the VAE decodes."""
        self._denoiser = None
        self._open.close()

    def _enter(self, conditioning: Conditioning, prepared: Prepared, step: int) -> None:
        job = self.job
        self._conditioning, self._prepared, self._inputs = conditioning, prepared, conditioning.at(step)
        self._denoiser = self._open.enter_context(
            bound_denoiser(
                job.components,
                job.model.family.denoiser,
                job.request,
                job.plan,
                conditioning,
                prepared,
                factor=job.capabilities.vae_scale_factor,
                notices=job.notices,
                sampler=job.scheduler.sampler,
            )
        )
        self._denoiser.condition(self._inputs)
        # Timings call the denoiser "unet" in every family, and have those of both models in one list.
        self._denoiser.seconds = job.timings.setdefault("unet", self._denoiser.seconds)

    def _take_over(self, step: int) -> None:
        """Let the refiner make the evaluations from now on. If memory runs out, free the first model and try again."""
        self.close()
        first, self._waiting = self.job, None
        if first.components.low_vram:
            first.free()
        try:
            self._enter_refiner(first, step)
            return
        except MemoryError as error:
            self.close()
            if not make_room(self.job, error):
                raise
        # This is outside `except`, because the error's traceback would keep the old sessions in memory.
        self._enter_refiner(first, step)

    def _enter_refiner(self, first: Pass, step: int) -> None:
        assert self._prepared is not None
        self.job = first.refined()
        conditioning = encode(self.job)
        self._enter(conditioning, _prepared_again(first, self.job, self._prepared), step)


def _prepared_again(first: Pass, refined: Pass, prepared: Prepared) -> Prepared:
    """The refiner's inputs beside the latents, if they differ from those of the first model.

    They are made with fresh noise of the same seeds, so that the run's own noise does not depend on the refiner.
    """
    if first.request.image is None or refined.capabilities.task == first.capabilities.task:
        return prepared
    if refined.request.mask_image is None and not refined.capabilities.task.sees_latents:
        return Prepared(x=prepared.x, canvases=prepared.canvases)
    generators = [rng.Generator(seed) for seed in refined.request.seeds]
    # The notices about the image were printed for the first model.
    made = prepare(replace(refined, generators=generators, notices=Notices(lambda _: None)))
    known = prepared.known_region if made.known_region is None else made.known_region
    return replace(made, x=prepared.x, known_region=known, canvases=prepared.canvases)
