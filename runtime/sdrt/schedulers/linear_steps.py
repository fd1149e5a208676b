"""A run of a sampler as sums, for programs in other languages, which have no samplers.

Most samplers add up the latents, the model's latest outputs and fresh noise, each with a factor that depends only on
the noise levels. `linear_steps` finds these factors. It lets the sampler itself run on symbols: the first latents, each
output and each draw of noise are vectors of a basis.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.scheduler import Scheduler

__all__ = ["HISTORY", "LinearStep", "linear_steps"]

HISTORY = 5
"""How many terms of the history a step may use: its own and four earlier ones."""
# Samplers round some factors to float32.
_ZERO = 1e-6
Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LinearStep:
    """One call of the model, and what becomes of the latents.

    The model gets ``scale · latents`` and `timestep`, and gives `output`. A new term of the history is
    ``term_latents · latents + term_output · output``. The next latents are
    ``keep · latents + Σ terms[k] · history[k] + noise · z``, with the newest term first, and z standard normal.

    Attributes:
        timestep: the timestep that the model gets.
        scale: the factor of the latents that the model gets.
        term_latents, term_output: the factors of the new term.
        keep: the factor of the latents.
        terms: the factors of the history, `HISTORY` of them.
        noise: the factor of fresh noise, which is drawn even if it is 0. None if the step draws no noise.
    """

    timestep: float
    scale: float
    term_latents: float
    term_output: float
    keep: float
    terms: tuple[float, ...]
    noise: float | None


def linear_steps(scheduler: Scheduler, plan: Plan, *, eta: float = 0.0) -> list[LinearStep]:
    """The steps of a run that `scheduler` has planned, from noise times `plan.init_scale` to the last latents.

    Raises:
        RequestError: its steps are not such sums.
    """
    settings = scheduler.settings
    is_limited = settings.thresholding or settings.clip_sample
    if not (plan.adaptive or is_limited or scheduler.sampler.needs_unconditional):
        for kind in _Term:
            found = _steps(scheduler, plan, eta, kind)
            if found is not None:
                return found
    raise RequestError.advised(
        f"scheduler {scheduler.name!r} cannot be written as sums of its last {HISTORY} outputs",
        "choose another, such as dpmpp_2m or euler",
        argument="scheduler",
    )


class _Term(Enum):
    """What the history has: estimates of the clean latents, slopes (estimates of the noise), or the model's outputs."""

    ESTIMATE = auto()
    SLOPE = auto()
    OUTPUT = auto()


def _steps(scheduler: Scheduler, plan: Plan, eta: float, kind: _Term) -> list[LinearStep] | None:
    """The steps with this kind of history. None if they need more than `HISTORY` terms of it."""
    run = _SymbolicRun(plan, kind)
    made: list[LinearStep] = []
    with np.errstate(all="ignore"):
        states = scheduler.sample(run.denoise, run.first, plan, noise=run.noise, eta=eta)
        before: Vector = run.first
        for step in states:
            after = np.array(step.x, np.float64)
            one = run.step(before, after)
            if one is None:
                return None
            made.append(one)
            before = after
    return made


class _SymbolicRun:
    """Vectors in place of latents: [first latents, each output's term …, each draw of noise …]."""

    def __init__(self, plan: Plan, kind: _Term) -> None:
        self._plan, self._kind = plan, kind
        self._outputs = 2 * plan.num_evaluations + 1
        self._size = 1 + 2 * self._outputs
        self._sigmas: list[float] = []
        self._draws = self._told = self._told_draws = 0
        self.first: Any = self._unit(0)

    def _unit(self, place: int) -> Vector:
        made = np.zeros(self._size)
        made[place] = 1
        return made

    def denoise(self, x: Any, sigma: float) -> Any:
        """What a sampler asks for: the estimate of the clean latents, from a new term."""
        self._sigmas.append(sigma)
        term = self._unit(len(self._sigmas))
        if self._kind is _Term.SLOPE:
            return x - sigma * term
        if self._kind is _Term.OUTPUT:
            c_skip, c_out, _ = self._plan.noise_schedule.scalings(sigma)
            return c_skip * x + c_out * term
        return term

    def noise(self) -> Any:
        """A new draw."""
        self._draws += 1
        return self._unit(self._outputs + self._draws)

    def step(self, before: Vector, after: Vector) -> LinearStep | None:
        """The step from one state to the next. None if it is not such a sum."""
        count, sigma = len(self._sigmas), self._sigmas[-1]
        if not np.isfinite(after).all() or count != self._told + 1:
            return None
        keep = after[0] / before[0] if abs(before[0]) > _ZERO else 0.0
        rest = after - keep * before
        first = max(count - HISTORY, 0)
        terms = rest[1 : count + 1]
        drawn = rest[self._outputs + 1 :]
        fresh = drawn[self._told_draws : self._draws]
        scale = max(1.0, float(np.abs(after).max()))
        older = [rest[0], *terms[:first], *drawn[: self._told_draws]]
        if np.abs(older).max(initial=0) > _ZERO * scale or len(fresh) > 1:
            return None
        self._told, self._told_draws = count, self._draws
        newest = list(terms[first:][::-1])
        c_skip, c_out, c_in = self._plan.noise_schedule.scalings(sigma)
        own = {
            _Term.ESTIMATE: (c_skip, c_out),
            # (latents - estimate) / sigma
            _Term.SLOPE: ((1 - c_skip) / sigma, -c_out / sigma),
            _Term.OUTPUT: (0.0, 1.0),
        }[self._kind]
        return LinearStep(
            timestep=self._plan.timestep(sigma),
            scale=float(c_in),
            term_latents=float(own[0]),
            term_output=float(own[1]),
            keep=float(keep),
            terms=tuple(float(one) for one in [*newest, *[0.0] * (HISTORY - len(newest))]),
            noise=float(fresh[0]) if len(fresh) else None,
        )
