"""The part of a run between two shares of the noise schedule: `denoising_start` and `denoising_end` of diffusers.

The rules are those of its pipelines for SDXL. A share s stands for the timestep `round(T - s·T)`, with T trained
timesteps. A run that ends at s makes the evaluations at this timestep and above. A run that begins at s makes those
below. With two evaluations a step, s may fall within a step. The first run ends there, but diffusers' second run begins
at the start of that step, so the two runs make one evaluation twice.
"""

from __future__ import annotations

from dataclasses import replace

from sdrt.common.messages import refused
from sdrt.errors import RequestError
from sdrt.schedulers.evaluations import skip_evaluations, skip_plms
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.table import SamplerRow

__all__ = ["begun_at", "cutoff_of", "ended_at"]


def cutoff_of(share: float, num_train_timesteps: int) -> int:
    """The timestep at which a share of the noise schedule is done. Halves are rounded to even, as Python does."""
    return round(num_train_timesteps - share * num_train_timesteps)


def begun_at(share: float, plan: Plan, sampler: SamplerRow, settings: Settings) -> Plan:
    """The plan without the evaluations of the share that is done. Its steps keep their numbers in the whole run.

    Raises:
        RequestError: no evaluation is left, or the sampler's levels cannot be cut.
    """
    _check(sampler, "denoising_start")
    cutoff = cutoff_of(share, settings.num_train_timesteps)
    left = sum(timestep < cutoff for timestep in plan.timesteps)
    if sampler.evaluations == 2 and left % 2 == 0:
        left = min(left + 1, plan.num_planned)
    if not left:
        raise refused(
            "denoising_start",
            f"is {share:g}, so none of the {plan.num_steps} steps would run",
            "a smaller share, or more steps",
        )
    done = plan.num_planned - left
    steps = plan.step_of(done)
    rest = sampler.skip(settings, plan, steps, done) if done else plan
    numbers = tuple(min(steps + rest.step_of(index), plan.num_steps - 1) for index in range(rest.num_planned))
    return replace(rest, num_steps=plan.num_steps, numbers=numbers)


def ended_at(share: float, plan: Plan, sampler: SamplerRow, settings: Settings) -> Plan:
    """The plan, which stops when the share is done. A share of 1 is the whole run.

    Raises:
        RequestError: no evaluation would run, or the sampler's levels cannot be cut.
    """
    if share >= 1:
        return plan
    _check(sampler, "denoising_end")
    cutoff = cutoff_of(share, settings.num_train_timesteps)
    count = sum(timestep >= cutoff for timestep in plan.timesteps)
    if not count:
        raise refused(
            "denoising_end",
            f"is {share:g}, so none of the steps would run: the first is at timestep {plan.timesteps[0]:g}, "
            f"and the run ends at {cutoff}",
            "a larger share",
        )
    return replace(plan, stops_after=count)


def _check(sampler: SamplerRow, argument: str) -> None:
    if sampler.skip not in (skip_evaluations, skip_plms):
        raise RequestError.advised(
            f"scheduler {sampler.name!r} has noise levels of its own, which {argument} cannot cut",
            "choose another, or leave it out",
            argument=argument,
        )
