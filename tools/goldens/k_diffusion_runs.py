"""Runs of sdrt's samplers that are compared with k-diffusion's, for the recorder and for the test without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sdrt.common.rng import Generator
from sdrt.schedulers import Plan, Scheduler, resolve_scheduler
from tools.goldens.scheduler_runs import SD15, SEED, SHAPE, model

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of `sampler`, which k-diffusion has as `sample_{function}`."""

    sampler: str
    function: str
    spacing: str | None
    steps: int
    prediction_type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed = SEED
    shape = SHAPE

    @property
    def id(self) -> str:
        return f"{self.sampler}-{self.spacing}-{self.steps}-{self.prediction_type}"

    @cached_property
    def scheduler(self) -> Scheduler:
        config = {**SD15, "prediction_type": self.prediction_type, "timestep_spacing": "linspace"}
        return resolve_scheduler(self.sampler, config, self.spacing)

    @cached_property
    def plan(self) -> Plan:
        return self.scheduler.plan(self.steps)

    @property
    def levels(self) -> dict[str, Any]:
        """k-diffusion's arguments that say which levels to visit."""
        schedule: Any = self.scheduler.noise_schedule
        if self.spacing is None:
            ends = {"sigma_min": schedule.sigmas[0], "sigma_max": schedule.sigmas[-1]}
            return {key: float(sigma) for key, sigma in ends.items()}
        # One evaluation a step: the levels between which a run steps.
        euler = "dpmpp_2m" if self.plan.variance_preserving else "euler"
        config = {**SD15, "prediction_type": self.prediction_type, "timestep_spacing": "linspace"}
        return {"sigmas": resolve_scheduler(euler, config, self.spacing).plan(self.steps).sigmas}

    def denoise(self, x: Array, sigma: float) -> Array:
        schedule = self.scheduler.noise_schedule
        c_skip, c_out, c_in = schedule.scalings(sigma)
        # Nearly the level of an adaptive step, so that both see the planned timestep where there is one.
        planned = [s for s in self.plan.sigmas[:-1] if abs(s / sigma - 1) < 1e-9]
        known = planned[0] if planned and not self.plan.adaptive else sigma
        return c_skip * x + c_out * model(c_in * x, self.plan.timestep(known))

    def ours(self) -> Array:
        """The last state of sdrt's run."""
        generator = Generator(self.seed)
        x = generator.randn(self.shape) * np.float32(self.plan.init_scale)
        *_, last = self.scheduler.sample(
            lambda x, sigma: np.asarray(self.denoise(x, sigma), dtype=np.float32),
            x,
            self.plan,
            noise=lambda: generator.randn(self.shape),
        )
        return np.asarray(last.x, dtype=np.float64)


def _runs() -> list[Run]:
    kinds = ("epsilon", "v_prediction")
    samplers: list[tuple[str, str, dict[str, Any], tuple[int, ...]]] = [
        ("dpmpp_2s_a", "dpmpp_2s_ancestral", {}, (1, 2, 7, 20)),
        # k-diffusion cannot take this one in a single step.
        ("dpmpp_2m_sde_heun", "dpmpp_2m_sde", {"solver_type": "heun"}, (2, 7, 20)),
    ]
    runs = [
        Run(
            sampler=name,
            function=function,
            spacing=spacing,
            steps=steps,
            prediction_type=kind,
            options=options,
        )
        for name, function, options, counts in samplers
        for spacing in ("karras", "normal", "exponential")
        for steps in counts
        for kind in kinds
    ]
    fast = [
        Run(
            sampler="dpm_fast",
            function="dpm_fast",
            spacing=None,
            steps=steps,
            prediction_type=kind,
            options={"eta": 1.0, "n": steps},
        )
        for steps in (1, 2, 3, 4, 5, 6, 20)
        for kind in kinds
    ]
    adaptive = [
        Run(
            sampler="dpm_adaptive",
            function="dpm_adaptive",
            spacing=None,
            steps=20,
            prediction_type=kind,
            options={"eta": 1.0},
        )
        for kind in kinds
    ]
    return [*runs, *fast, *adaptive]


RUNS = _runs()
