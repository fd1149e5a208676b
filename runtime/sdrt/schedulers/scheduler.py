"""A scheduler is a noise schedule, a spacing and a sampler: what a user picks by one name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.schedulers.config import Settings, build_noise_schedule, read_settings
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan, Step, relabelling
from sdrt.schedulers.samplers import Denoise, Latents, Noise, SamplerOptions
from sdrt.schedulers.table import SAMPLERS, SPACINGS, SamplerRow
from sdrt.wording import brief

__all__ = ["Scheduler"]

_SHORT_RUN = 15
# Zero terminal SNR goes up to 2^24. Beyond, float32 loses the model's output beside the noise.
_LARGEST_SIGMA = 1e8


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Made by `resolve_scheduler`; immutable, and free of the state of any run."""

    sampler: SamplerRow
    settings: Settings
    noise_schedule: NoiseSchedule

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, sampler: SamplerRow | None = None) -> Scheduler:
        """What diffusers' `from_config` of the sampler's class, or of the class the config names, would be.

        Raises:
            UnsupportedModelError: the class, or a key that changes the result, is not supported.
        """
        row = sampler or _row_of_class(config.get("_class_name"))
        settings = read_settings(
            config, class_name=row.class_name, defaults=row.defaults, known=row.known_keys
        )
        schedule = build_noise_schedule(settings, zero_snr_alpha=row.zero_snr_alpha)
        return cls(sampler=row, settings=settings, noise_schedule=schedule)

    @property
    def name(self) -> str:
        """The sampler's name in SAMPLERS."""
        return self.sampler.name

    @property
    def spacing(self) -> str:
        """The spacing's name in SPACINGS."""
        return "karras" if self.settings.use_karras_sigmas else self.settings.timestep_spacing

    @property
    def display_name(self) -> str:
        """A1111's name, such as "DPM++ 2M Karras"."""
        return self.sampler.display_name + (" Karras" if self.settings.use_karras_sigmas else "")

    def with_spacing(self, spacing: str) -> Scheduler:
        """The same sampler on other noise levels.

        Raises:
            RequestError: no such spacing, or the sampler does not take it.
        """
        if spacing not in self.sampler.spacings:
            valid = ", ".join(self.sampler.spacings)
            known = f"spacing {spacing!r} is not for scheduler {self.name!r}"
            raise RequestError(
                f"{known if spacing in tuple(SPACINGS) else f'unknown spacing {brief(spacing)}'}; "
                f"choose one of: {valid}"
            )
        return replace(self, settings=replace(self.settings, **SPACINGS[spacing]))

    @property
    def reads_eta(self) -> bool:
        """Whether `eta` changes anything; for the others the share of fresh noise is fixed."""
        return self.sampler.eta is None

    def stochastic(self, eta: float = 0.0) -> bool:
        """Whether a run draws noise after the first; `eta` counts only for samplers that read it."""
        return self._eta(eta) > 0

    def plan(self, num_inference_steps: int) -> Plan:
        """The noise levels that a run of so many steps visits.

        Raises:
            RequestError: fewer than 1 step, or more than the model or the spacing has room for.
            UnsupportedModelError: the config's levels do not fall from a finite one to above zero.
        """
        trained = self.settings.num_train_timesteps
        if not 1 <= num_inference_steps <= trained:
            raise RequestError(f"num_inference_steps is {num_inference_steps}; expected 1 to {trained}")
        # Levels far from any model's leave the range of float32; what comes of it is looked at below.
        with np.errstate(all="ignore"):
            plan = self.sampler.plan(self.settings, self.noise_schedule, num_inference_steps)
        if not _falls(plan):
            raise UnsupportedModelError(
                f"scheduler config ({self.sampler.class_name}): the noise levels of {num_inference_steps} steps do "
                "not fall from a finite one to above zero. Change sigma_min, sigma_max or lambda_min_clipped in "
                "scheduler_config.json, or ask for another scheduler by name"
            )
        return plan

    def sample(
        self, denoise: Denoise, x: Latents, plan: Plan, *, noise: Noise, eta: float = 0.0
    ) -> Iterator[Step]:
        """Go from x at plan.sigmas[0] to plan.sigmas[-1], one Step per U-Net evaluation.

        Args:
            denoise: (x, sigma) → denoised, float32 arrays of one shape; the model behind it is evaluated at
                plan.timestep(sigma).
            x: float32 standard normal noise times plan.init_scale; left as it is.
            plan: from `plan` of this scheduler.
            noise: gives standard normal noise of x's shape, called once per step if `stochastic(eta)`.
            eta: DDIM's η, 0 to 1.

        Raises:
            RequestError: eta is outside 0 to 1.
        """
        if not 0 <= eta <= 1:
            raise RequestError(f"eta is {eta}; expected a number from 0 to 1")
        return self._steps(denoise, x, plan, self._options(plan, noise, eta))

    def _steps(self, denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> Iterator[Step]:
        states = self.sampler.integrate(denoise, x, plan, options)
        for index, (state, denoised) in enumerate(states):
            sigma, landed = plan.sigmas[index + 1], plan.transfers[index][1]
            if landed != sigma:
                state *= relabelling(landed, sigma)
            yield Step(
                index=index,
                timestep=plan.timesteps[index],
                sigma=sigma,
                x=state,
                denoised=denoised,
                last=index == plan.num_evaluations - 1,
            )

    def _eta(self, eta: float) -> float:
        return eta if self.sampler.eta is None else self.sampler.eta

    def _options(self, plan: Plan, noise: Noise, eta: float) -> SamplerOptions:
        s = self.settings
        # The authors of DPM++ end short runs on a lower order; diffusers takes under 15 steps to be short.
        short = s.lower_order_final and plan.num_evaluations < _SHORT_RUN
        return SamplerOptions(
            noise=noise,
            eta=self._eta(eta),
            clip_range=s.clip_sample_range if s.clip_sample else None,
            order=s.solver_order,
            midpoint=s.solver_type == "midpoint",
            first_order_last=s.euler_at_final or short,
        )


def _falls(plan: Plan) -> bool:
    visited = np.array(plan.sigmas[:-1])
    if not visited.size or not np.isfinite([*plan.sigmas, *plan.timesteps]).all():
        return False
    return bool(visited.min() > 0 and visited[0] <= _LARGEST_SIGMA and (np.diff(visited) <= 0).all())


def _row_of_class(class_name: object) -> SamplerRow:
    for row in SAMPLERS.values():
        if row.class_name == class_name:
            return row
    supported = ", ".join(row.class_name for row in SAMPLERS.values())
    raise UnsupportedModelError(
        f"scheduler config: _class_name is {brief(class_name)}; supported: {supported}. "
        "Ask for a scheduler by name"
    )
