"""A denoiser that leaves out calls, as a rule decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers import Denoise, Latents
from sdrt.schedulers.skipping.base import Call, Past, Rule, Weights

__all__ = ["Skipping"]


class Skipping:
    """The function `(x, sigma) → denoised` of another denoiser, or what a rule puts in its place.

    Args:
        denoise: the denoiser.
        rule: decides which evaluations call it.
        plan: the evaluations of the run.
        unconditional: returns the estimate without the prompt in the last call, if the sampler needs it.
    """

    def __init__(
        self,
        denoise: Denoise,
        rule: Rule,
        plan: Plan,
        *,
        unconditional: Callable[[], Latents] | None = None,
    ) -> None:
        self._denoise, self._rule, self._plan = denoise, rule, plan
        self._without_prompt = unconditional
        self._index = self._made = 0
        self._calls: list[Call] = []
        # The estimates of the last evaluation [1 or 2, N, C, h, w]: with the prompt, and without it if that is needed.
        self._estimates: Latents = np.zeros((0,), np.float32)

    def __call__(self, x: Latents, sigma: float) -> Latents:
        """Estimate the clean latents [N, C, h, w] in `x`, which has the noise level `sigma`."""
        time = self._time(sigma)
        weights = self._weights(time)
        if weights is not None:
            self._estimates = self._put_in_place(weights, x, sigma)
        else:
            self._estimates = self._called(x, sigma)
            self._made += 1
            output = self._estimates
            if not self._rule.adds_estimates:
                output = (x - output) / np.float32(sigma)
            self._calls.append(Call(index=self._index, time=time, output=output))
        self._index += 1
        denoised: Latents = self._estimates[0]
        return denoised

    def unconditional(self) -> Latents:
        """The estimate without the prompt in the last evaluation."""
        denoised: Latents = self._estimates[1]
        return denoised

    @property
    def skipped(self) -> int:
        """How many evaluations did not call the denoiser so far."""
        return self._index - self._made

    def forget(self) -> None:
        """Forget the past calls, because the network or what it sees is another from now on."""
        self._calls.clear()

    def _weights(self, time: float) -> Weights | None:
        if not self._calls:
            return None
        return self._rule(Past(plan=self._plan, index=self._index, time=time, calls=self._calls))

    def _called(self, x: Latents, sigma: float) -> Latents:
        denoised = self._denoise(x, sigma)
        made = [denoised] if self._without_prompt is None else [denoised, self._without_prompt()]
        return np.stack(made)

    def _put_in_place(self, weights: Weights, x: Latents, sigma: float) -> Latents:
        total: Latents = np.zeros_like(self._calls[-1].output)
        for weight, call in zip(weights, self._calls, strict=True):
            if weight:
                total += np.float32(weight) * call.output
        if not self._rule.adds_estimates:
            total *= np.float32(-sigma)
            total += x
        return total

    def _time(self, sigma: float) -> float:
        """Where in the run a level is: 0 at the first timestep of the plan, 1 at the last."""
        first, last = self._plan.timesteps[0], self._plan.timesteps[-1]
        return (first - self._plan.timestep(sigma)) / ((first - last) or 1.0)
