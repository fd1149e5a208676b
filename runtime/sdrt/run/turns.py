"""Chooses the model that denoises: the pass's own, or the refiner after it has taken over."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sdrt.common import rng
from sdrt.common.notices import Notices
from sdrt.request.guidance_interval import GuidanceInterval
from sdrt.run.conditioning import Conditioning
from sdrt.run.denoiser import Array, bound_denoiser
from sdrt.run.job import Pass, encode, make_room, prepare
from sdrt.run.preparation import Prepared
from sdrt.run.result import GenerationStep
from sdrt.schedulers import Step
from sdrt.schedulers.skipping import OFF, Skipping, rule_for, why_none

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
        self._interval = GuidanceInterval.of(job.request.guidance_interval)
        self._guides = True
        self._skipping: Skipping | None = None

    def encode(self) -> None:
        """Make the text embeddings of the model that begins. A refiner that begins makes them in `begin`."""
        if self._waiting is None or not self._waiting.begins_at_once:
            self.job.components.load_denoiser_ahead(self.job.request.denoiser_inputs)
            self._conditioning = encode(self.job)

    def begin(self, prepared: Prepared) -> None:
        """Open the model that makes the first step."""
        self._prepared, plan = prepared, self.job.plan
        self._skipping = self._skips()
        # With denoising_start, a run begins with a later step of the whole.
        first = 0 if plan.adaptive else plan.step_of(0)
        if self._conditioning is None:
            self._take_over(first)
        else:
            self._enter(self._conditioning, prepared, first)

    def __call__(self, x: Array, sigma: float) -> Array:
        """Estimate the clean latents [N, C, h, w] in `x`, which has the noise level `sigma`."""
        return self._call(x, sigma) if self._skipping is None else self._skipping(x, sigma)

    def unconditional(self) -> Array:
        """The estimate of the last call without the prompt."""
        return self._without_prompt() if self._skipping is None else self._skipping.unconditional()

    @property
    def skipped_calls(self) -> int:
        """How many evaluations did not call the model."""
        return 0 if self._skipping is None else self._skipping.skipped

    def _call(self, x: Array, sigma: float) -> Array:
        assert self._denoiser is not None  # between `begin` and `close`
        return self._denoiser(x, sigma)

    def _without_prompt(self) -> Array:
        assert self._denoiser is not None
        return self._denoiser.unconditional

    def _skips(self) -> Skipping | None:
        """What leaves calls out, if the request asks for it. Warn if it has no effect."""
        job, sampler = self.job, self.job.scheduler.sampler
        stochastic = job.scheduler.stochastic(job.request.eta)
        rule = rule_for(job.request.accelerate, job.plan, sampler, stochastic=stochastic)
        if rule is None:
            if job.request.accelerate != OFF:
                job.notices.warn(f"accelerate skips no calls: {why_none(job.plan, sampler)}")
            return None
        return Skipping(
            self._call,
            rule,
            job.plan,
            unconditional=self._without_prompt if sampler.needs_unconditional else None,
        )

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

    def go_on(self, step: Step, *, changed: bool = False) -> None:
        """Change the model or the prompt before the evaluation after `step`, if it has others.

        `changed` says whether a callback changed anything.
        """
        if step.last:
            return
        changed |= self._change_after(step)
        assert self._denoiser is not None
        changed |= self._denoiser.begin(step.index + 1)
        if changed and self._skipping is not None:
            self._skipping.forget()

    def _change_after(self, step: Step) -> bool:
        """Change the model, its rows or the prompt before the evaluation after `step`. Tell whether one changed."""
        assert self._conditioning is not None
        assert self._denoiser is not None
        if self._waiting is not None and self._waiting.begins_after(step):
            self._take_over(step.following)
        elif self._is_guided(step.following) != self._guides:
            self._change_rows(step)
        # The prompt may change between steps, but not between two evaluations of one step.
        elif self._conditioning.changes(step.number, step.following):
            self._inputs = self._conditioning.at(step.following)
            self._denoiser.condition(self._inputs)
        else:
            return False
        return True

    def close(self) -> None:
        """Return the buffers and drop the graph, which must not stay in memory while the VAE decodes."""
        self._denoiser = None
        self._open.close()

    def _enter(self, conditioning: Conditioning, prepared: Prepared, step: int) -> None:
        self._conditioning, self._prepared, self._inputs = conditioning, prepared, conditioning.at(step)
        self._open_denoiser(step, self.job.notices)

    def _open_denoiser(self, step: int, notices: Notices) -> None:
        """Open the denoiser with the rows that a step needs: all, or only the prompts' outside the interval."""
        assert self._conditioning is not None
        assert self._prepared is not None
        job, conditioning, part = self.job, self._conditioning, slice(None)
        self._guides = self._is_guided(step)
        if not self._guides:
            conditioning, part = conditioning.outside_interval()
        self._denoiser = self._open.enter_context(
            bound_denoiser(
                job.components,
                job.model.family.denoiser,
                job.request,
                job.plan,
                conditioning,
                self._prepared,
                factor=job.capabilities.vae_scale_factor,
                notices=notices,
                sampler=job.scheduler.sampler,
                part=part,
            )
        )
        self._denoiser.condition(self._inputs)
        # Timings call the denoiser "unet" in every family, and have those of both models in one list.
        self._denoiser.seconds = job.timings.setdefault("unet", self._denoiser.seconds)

    def _is_guided(self, step: int) -> bool:
        """Whether guidance steers a step, if it steers any."""
        return not self.guided or self._interval.guides(step, self.job.plan.num_steps)

    def _change_rows(self, step: Step) -> None:
        """Go on with or without the unconditional rows. A callback's changes to the embeddings stay."""
        assert self._conditioning is not None
        self.close()
        if self._conditioning.changes(step.number, step.following):
            self._inputs = self._conditioning.at(step.following)
        # The notices about the denoiser were given when it was first opened.
        self._open_denoiser(step.following, Notices(lambda _: None))

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
