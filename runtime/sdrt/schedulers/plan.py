"""A run's timesteps and noise levels, computed before its first step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdrt.schedulers.noise_schedule import NoiseSchedule

__all__ = ["Plan", "Step", "relabelling"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The noise levels of one run, with one entry per U-Net evaluation.

    Attributes:
        timesteps: the timestep that the U-Net gets in each evaluation, as in diffusers' list.
        sigmas: the noise levels at which the U-Net is evaluated, descending, and then the final one.
        transfers: for each evaluation, the two levels between which the sampler moves the state. They are (sigmas[i],
            sigmas[i+1]), except where the steps of a spacing are uneven: diffusers' DDIM and PNDM step to `timestep -
            T // n` there too, and use the result as the state at the next timestep.
        init_scale: the factor of the first noise: x = noise · init_scale.
        variance_preserving: whether diffusers' latents are x/√(1+σ²) for a variance-exploding x. Otherwise they are x.
        num_steps: how many steps were asked for; some samplers evaluate the U-Net more often.
        noise_schedule: what the model was trained on. It says what x is at a noise level.
        skipped: how many evaluations of the whole run this run leaves out, because it starts from an image.
        numbers: the step, from 0, that each evaluation belongs to. Empty if the evaluations are spread evenly.
        adaptive: whether the sampler chooses its steps as it goes. Then `sigmas` are only the first and the last
            level, and there are no planned evaluations.
        stops_after: how many evaluations run, if the run ends before its last level. The levels after it stay in the
            plan, because the order of some rules depends on the steps that would follow, as in diffusers.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    transfers: tuple[tuple[float, float], ...]
    init_scale: float
    variance_preserving: bool
    num_steps: int
    noise_schedule: NoiseSchedule
    skipped: int = 0
    numbers: tuple[int, ...] = ()
    adaptive: bool = False
    stops_after: int | None = None

    @property
    def num_evaluations(self) -> int:
        """How many times the U-Net is evaluated, and so how many steps a run yields. 0 if `adaptive`."""
        return self.num_planned if self.stops_after is None else self.stops_after

    @property
    def num_planned(self) -> int:
        """The number of evaluations down to the last level, including those that do not run."""
        return len(self.timesteps)

    def step_of(self, evaluation: int) -> int:
        """The step that an evaluation belongs to, out of `num_steps`. Both are counted from 0."""
        if self.numbers:
            return self.numbers[min(evaluation, len(self.numbers) - 1)]
        return min(evaluation * self.num_steps // self.num_planned, self.num_steps - 1)

    def step_at(self, sigma: float) -> int:
        """The step, out of `num_steps`, that begins at a level of an `adaptive` run, in proportion to log σ."""
        share = math.log(self.sigmas[0] / sigma) / math.log(self.sigmas[0] / self.sigmas[-1])
        return min(int(share * self.num_steps), self.num_steps - 1)

    def is_last_of_step(self, evaluation: int) -> bool:
        """Whether the next evaluation, if any, begins from another level than this one."""
        sources = [source for source, _ in self.transfers[evaluation : evaluation + 2]]
        return len(sources) == 1 or sources[0] != sources[1]

    def latents_scale(self, sigma: float) -> float:
        """Factor from the state x at a level to what diffusers calls `latents` there."""
        return 1 / math.sqrt(1 + sigma**2) if self.variance_preserving else 1.0

    def timestep(self, sigma: float) -> float:
        """The U-Net's timestep at a noise level: the planned one, or interpolated between trained levels."""
        if sigma in self.sigmas[:-1] and not self.adaptive:
            return self.timesteps[self.sigmas.index(sigma)]
        return float(self.noise_schedule.timestep_at(sigma))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step taken. `x` is the sampler's live state: writing into it changes the rest of the run.

    Attributes:
        index: the number of the evaluation, from 0.
        timestep: the one at which the U-Net was evaluated.
        sigma: the noise level of x after the step.
        x: float32, signal · clean + sigma · noise, with the signal that the noise schedule gives sigma.
        denoised: the estimate of the clean latents in this evaluation.
        last: whether this is the run's last step.
        number: the step, out of `Plan.num_steps`, that the evaluation belongs to, from 0.
        following: the same of the next evaluation.
    """

    index: int
    timestep: float
    sigma: float
    x: npt.NDArray[np.float32]
    denoised: npt.NDArray[np.float32]
    last: bool
    number: int
    following: int


def relabelling(source: float, target: float) -> float:
    """The factor that keeps variance-preserving latents unchanged when x counts as a state at another level."""
    return math.sqrt((1 + target**2) / (1 + source**2))
