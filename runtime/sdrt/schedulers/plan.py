"""What a run visits: one value, computed before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdrt.schedulers.noise_schedule import NoiseSchedule

__all__ = ["Plan", "Step", "relabelling"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The noise levels of one run; one entry per U-Net evaluation.

    Attributes:
        timesteps: what the U-Net is told, equal to diffusers' list.
        sigmas: noise levels at which it is evaluated, descending, then the final one.
        transfers: for each evaluation, the levels the state is moved between: (sigmas[i], sigmas[i+1]), but
            for spacings whose steps are uneven. There diffusers' DDIM and PNDM land on `timestep - T // n`
            all the same, and read the result as the next timestep's.
        init_scale: x = noise · init_scale.
        variance_preserving: whether diffusers' latents are x/√(1+σ²), where x is variance exploding; else they are x.
        num_steps: what was asked for; some samplers evaluate the U-Net more often.
        noise_schedule: what the model was trained on, which says what x is at a level.
        skipped: evaluations of the whole run that come before this one's, where it begins from an image.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    transfers: tuple[tuple[float, float], ...]
    init_scale: float
    variance_preserving: bool
    num_steps: int
    noise_schedule: NoiseSchedule
    skipped: int = 0

    @property
    def num_evaluations(self) -> int:
        """U-Net calls, which is also how many steps are yielded."""
        return len(self.timesteps)

    def step_of(self, evaluation: int) -> int:
        """Which of the steps asked for an evaluation belongs to, both counted from 0."""
        return min(evaluation * self.num_steps // self.num_evaluations, self.num_steps - 1)

    def latents_scale(self, sigma: float) -> float:
        """Factor from the state x at a level to what diffusers calls `latents` there."""
        return 1 / math.sqrt(1 + sigma**2) if self.variance_preserving else 1.0

    def timestep(self, sigma: float) -> float:
        """The U-Net's timestep at a noise level: the planned one, or interpolated between trained levels."""
        if sigma in self.sigmas[:-1]:
            return self.timesteps[self.sigmas.index(sigma)]
        return float(self.noise_schedule.timestep_at(sigma))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step taken. `x` is the sampler's live state: writing into it changes the rest of the run.

    Attributes:
        index: from 0.
        timestep: where the U-Net was evaluated.
        sigma: the noise level that x has now.
        x: float32, signal · clean + sigma · noise, with the signal that the noise schedule gives sigma.
        denoised: the estimate of the clean latents that the step was made from.
        last: whether the run ends here.
    """

    index: int
    timestep: float
    sigma: float
    x: npt.NDArray[np.float32]
    denoised: npt.NDArray[np.float32]
    last: bool


def relabelling(source: float, target: float) -> float:
    """Factor that keeps variance-preserving latents as they are while x is read at another level."""
    return math.sqrt((1 + target**2) / (1 + source**2))
