"""A scheduler is a noise schedule, a spacing and a sampler: what a user picks by one name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from sdrt.common.messages import brief, refused, wrong_value
from sdrt.errors import RequestError, UnknownAttributeError, UnsupportedModelError
from sdrt.foreign.checked import ExplainsAttributes, explains_assignment
from sdrt.foreign.pipeline import SCHEDULER
from sdrt.schedulers.config_rows import as_named, row_of_settings, rows_of_class, settings_of_row
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.parts import begun_at, ended_at
from sdrt.schedulers.plan import Plan, Step, relabelling
from sdrt.schedulers.samplers import AdaptiveState, Denoise, Latents, Noise, SamplerOptions, thresholded
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.table import SPACING_LABELS, SPACINGS, SamplerRow, plain_name
from sdrt.schedulers.written_config import SchedulerConfig, written_config

__all__ = ["Scheduler"]

# Zero terminal SNR goes up to 2^24. Beyond that, the model's output is lost in the rounding of the noise.
_LARGEST_SIGMA = 1e8
_LONGEST = 64
"""How many characters of a name are compared with the known names."""


@explains_assignment
@dataclass(frozen=True, kw_only=True)
class Scheduler(ExplainsAttributes):
    """A noise schedule, a spacing and a sampler, made by `resolve_scheduler`. It is immutable, so runs can share it."""

    sampler: SamplerRow
    settings: Settings
    noise_schedule: NoiseSchedule
    source: str | None = field(default=None, compare=False)
    """The file from which a config was read, for metadata; None for a name, or for the model's own config."""
    given: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The config that the settings were read from."""
    _words: ClassVar = SCHEDULER

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, sampler: SamplerRow | None = None) -> Scheduler:
        """The scheduler that diffusers' `from_config` makes, of the sampler's class or the one that the config names.

        Raises:
            UnsupportedModelError: the class, or a key that changes the result, is not supported.
        """
        rows = [sampler] if sampler else rows_of_class(config.get("_class_name"))
        row = rows[0]
        settings = settings_of_row(row, config)
        if sampler:
            settings = as_named(sampler, settings)
        else:
            row = row_of_settings(rows, settings)
        schedule = row.schedule(settings, row.zero_snr_alpha)
        return cls(sampler=row, settings=settings, noise_schedule=schedule, given=config)

    @property
    def config(self) -> SchedulerConfig:
        """The config of the diffusers class that has the same results, for `from_config` and for files.

        Raises:
            UnknownAttributeError: no config of that class has these results.
        """
        as_given = settings_of_row(self.sampler, self.given)
        written = written_config(self.sampler, self.settings, self.given, as_given)
        with suppress(UnsupportedModelError):
            again = Scheduler.from_config(written, sampler=self.sampler).settings
            if self.sampler.class_name and again == self.settings:
                return written
        whose = self.sampler.class_name or "no class of diffusers"
        raise UnknownAttributeError.advised(
            f"scheduler {self.name!r} with spacing {self.spacing!r} has no config, because {whose} "
            f"{'lacks that spacing' if self.sampler.class_name else 'has its results'}",
            "choose it by name",
            argument="scheduler",
        )

    @property
    def name(self) -> str:
        """The sampler's name in SAMPLERS."""
        return self.sampler.name

    @property
    def spacing(self) -> str:
        """The spacing's name in SPACINGS."""
        return self.settings.levels or self.settings.timestep_spacing

    @property
    def display_name(self) -> str:
        """A1111's name, such as "DPM++ 2M Karras"."""
        label = SPACING_LABELS.get(self.spacing)
        return f"{self.sampler.display_name} {label}" if label else self.sampler.display_name

    def with_spacing(self, spacing: str) -> Scheduler:
        """The same sampler with another spacing.

        Raises:
            RequestError: the spacing is unknown, or the sampler does not support it.
        """
        if plain_name(str(spacing)) == "automatic" and not self.sampler.spacings:
            return self
        asked, spacing = spacing, self.sampler.spacing_named(spacing) if isinstance(spacing, str) else ""
        if spacing not in self.sampler.spacings:
            known = f"spacing {spacing!r} is not for scheduler {self.name!r}"
            problem = known if spacing in tuple(SPACINGS) else _unknown_spacing(asked, self.sampler.spacings)
            valid = ", ".join(self.sampler.spacings)
            remedy = (
                f"choose one of: {valid}"
                if valid
                else "leave it out, because the scheduler has its own levels"
            )
            raise RequestError(f"{problem}; {remedy}", argument="spacing", fits=remedy)
        return replace(self, settings=replace(self.settings, **SPACINGS[spacing]))

    def with_levels(
        self, *, timesteps: Sequence[int] | None = None, sigmas: Sequence[float] | None = None
    ) -> Scheduler:
        """The same sampler at the `timesteps` given, or at the noise levels `sigmas`, the last of which ends the run.

        Raises:
            RequestError: both are given, the numbers do not fall or are outside the trained range, or the sampler does
                not support them.
        """
        if timesteps is not None and sigmas is not None:
            raise RequestError(
                "expected at most one of timesteps and sigmas, got both",
                argument="sigmas",
                fits="at most one of timesteps and sigmas",
            )
        if timesteps is not None:
            self._check_levels("timesteps", timesteps, takes=self.sampler.takes_timesteps)
            if timesteps[0] >= self.settings.num_train_timesteps or timesteps[-1] < 0:
                last = self.settings.num_train_timesteps - 1
                raise refused("timesteps", f"are {brief(list(timesteps))}", f"numbers from 0 to {last}")
            return replace(self, settings=replace(self.settings, levels=None, timesteps=tuple(timesteps)))
        if sigmas is not None:
            self._check_levels("sigmas", sigmas, takes=self.sampler.takes_sigmas)
            if len(sigmas) < 2 or sigmas[-2] <= 0 or sigmas[-1] < 0:
                raise refused(
                    "sigmas", f"are {brief(list(sigmas))}", "two or more numbers, all above 0 except the last"
                )
            if self.noise_schedule.signal(sigmas[0]) < 0:
                raise refused(
                    "sigmas", f"are {brief(list(sigmas))}", "at most 1, which is pure noise in flow matching"
                )
            return replace(
                self, settings=replace(self.settings, levels=None, sigmas=tuple(map(float, sigmas)))
            )
        return self

    def _check_levels(self, name: str, values: Sequence[float], *, takes: bool) -> None:
        if not takes:
            raise RequestError.advised(
                f"scheduler {self.name!r} takes no {name}", "choose another, or leave them out", argument=name
            )
        # In float32, as the levels are kept.
        if (np.diff(np.array(values, np.float32)) >= 0).any():
            raise refused(name, f"are {brief(list(values))}", "numbers in falling order")

    @property
    def reads_eta(self) -> bool:
        """Whether `eta` has an effect. For other samplers the share of fresh noise is fixed."""
        return self.sampler.eta is None

    def stochastic(self, eta: float = 0.0) -> bool:
        """Whether a run draws more noise after its initial noise. `eta` counts only for samplers that read it."""
        return self._eta(eta) > 0

    def plan(
        self,
        num_inference_steps: int,
        *,
        skip: int = 0,
        strength: float = 1.0,
        start: float | None = None,
        end: float | None = None,
    ) -> Plan:
        """The timesteps and noise levels of a run of `num_inference_steps` steps, without the first `skip` steps.

        `strength` is the share of the noise that an image has at the start of a run that skips no steps. Only a sampler
        for distilled models can place all steps below it (`SamplerRow.is_distilled`). The run
        begins when the share `start` of the noise schedule is done, and stops at the share `end`, each between
        0 and 1.

        Raises:
            RequestError: the number of steps is below 1, or too large for the model or the spacing, or no step is left.
            UnsupportedModelError: the config's levels do not fall from a finite level to one above zero.
        """
        trained = self.settings.num_train_timesteps
        if not 1 <= num_inference_steps <= trained:
            raise wrong_value("num_inference_steps", num_inference_steps, f"1 to {trained}")
        # Levels far from any model's leave the range of float32; the plan is checked below.
        with np.errstate(all="ignore"):
            settings = self.settings if strength == 1 else replace(self.settings, strength=strength)
            plan = self.sampler.plan(settings, self.noise_schedule, num_inference_steps)
        if not _falls(plan, rises=self.sampler.rises):
            raise UnsupportedModelError.advised(
                f"scheduler config ({self.sampler.class_name}): the noise levels of {num_inference_steps} steps do "
                "not fall from a finite one to above zero",
                "Change sigma_min, sigma_max or lambda_min_clipped in "
                "scheduler_config.json, or ask for another scheduler by name",
                joint=". ",
                component="scheduler",
            )
        if skip:
            plan = self.sampler.skip(self.settings, plan, skip, skip * self.sampler.evaluations)
        if start is not None:
            plan = begun_at(start, plan, self.sampler, self.settings)
        return plan if end is None else ended_at(end, plan, self.sampler, self.settings)

    def sample(
        self,
        denoise: Denoise,
        x: Latents,
        plan: Plan,
        *,
        noise: Noise,
        eta: float = 0.0,
        unconditional: Callable[[], Latents] | None = None,
    ) -> Iterator[Step]:
        """Go from x at plan.sigmas[0] to plan.sigmas[-1], one Step per U-Net evaluation.

        Args:
            denoise: (x, sigma) → denoised, float32 arrays of the same shape. It evaluates the model at
                plan.timestep(sigma).
            x: float32 standard normal noise times plan.init_scale. It is not changed.
            plan: made by this scheduler's `plan`.
            noise: returns standard normal noise of x's shape. It is called once per step if `stochastic(eta)`.
            eta: DDIM's η, 0 to 1.
            unconditional: returns the estimate without the prompt in the last evaluation. Only a sampler whose row
                says `needs_unconditional` calls it.

        Raises:
            RequestError: eta is outside 0 to 1, or `unconditional` is missing.
        """
        if not 0 <= eta <= 1:
            raise wrong_value("eta", eta, "a number from 0 to 1")
        if self.sampler.needs_unconditional and unconditional is None:
            raise RequestError.advised(
                f"scheduler {self.name!r} needs guidance",
                "use a guidance_scale above 1, or choose another scheduler",
                argument="guidance_scale",
            )
        options = replace(self._options(noise, eta), unconditional=unconditional)
        if plan.adaptive:
            return self._chosen_steps(denoise, x, plan, options)
        return self._steps(denoise, x, plan, options)

    def _steps(self, denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> Iterator[Step]:
        states = self.sampler.integrate(denoise, x, plan, options)
        for index, (state, denoised) in enumerate(islice(states, plan.num_evaluations)):
            sigma, landed = plan.sigmas[index + 1], plan.transfers[index][1]
            if landed != sigma and plan.variance_preserving:
                state *= relabelling(landed, sigma)
            yield Step(
                index=index,
                timestep=plan.timesteps[index],
                sigma=sigma,
                x=state,
                denoised=denoised,
                last=index == plan.num_evaluations - 1,
                number=plan.step_of(index),
                following=plan.step_of(index + 1),
            )

    def _chosen_steps(
        self, denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions
    ) -> Iterator[Step]:
        """The steps of a sampler that chooses them itself."""
        number = 0
        for index, state in enumerate(self.sampler.integrate(denoise, x, plan, options)):
            assert isinstance(state, AdaptiveState)
            following = plan.step_at(state.sigma) if state.done else number
            yield Step(
                index=index,
                timestep=plan.timestep(state.evaluated),
                sigma=state.sigma,
                x=state.x,
                denoised=state.denoised,
                last=state.last,
                number=number,
                following=following,
            )
            number = following

    def _eta(self, eta: float) -> float:
        return eta if self.sampler.eta is None else self.sampler.eta

    def _options(self, noise: Noise, eta: float) -> SamplerOptions:
        s = self.settings
        return SamplerOptions(
            noise=noise,
            eta=self._eta(eta),
            limit=self._limit(),
            order=s.solver_order,
            corrector_order=s.corrector_order,
            solver_type=s.solver_type,
            lower_order_final=s.lower_order_final,
            euler_at_final=s.euler_at_final,
            disable_corrector=s.disable_corrector,
            timestep_scaling=s.timestep_scaling,
            skip_prk_steps=s.skip_prk_steps,
        )

    def _limit(self) -> Callable[[Latents], Latents]:
        s = self.settings
        if s.thresholding:
            return partial(thresholded, ratio=s.dynamic_thresholding_ratio, most=s.sample_max_value)
        if s.clip_sample:
            return partial(np.clip, a_min=-s.clip_sample_range, a_max=s.clip_sample_range)
        return SamplerOptions.limit


def _falls(plan: Plan, *, rises: bool) -> bool:
    """Whether the levels are finite, above zero, and fall, unless the sampler `rises` to higher ones."""
    visited = np.array(plan.sigmas[:-1])
    if not visited.size or not np.isfinite([*plan.sigmas, *plan.timesteps]).all():
        return False
    ordered = rises or (np.diff(visited) <= 0).all()
    return bool(visited.min() > 0 and visited.max() <= _LARGEST_SIGMA and ordered)


def _unknown_spacing(asked: str, spacings: Sequence[str]) -> str:
    close = difflib.get_close_matches(plain_name(str(asked))[:_LONGEST], spacings, n=1)
    return f"unknown spacing {brief(asked)}" + (f" (did you mean {close[0]}?)" if close else "")
