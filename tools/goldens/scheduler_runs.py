"""Runs of sdrt's schedulers on an analytic model, for the recorder and for tests with and without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sdrt.common.rng import Generator
from sdrt.schedulers import SAMPLERS, SPACINGS, Plan, Scheduler, resolve_scheduler
from sdrt.schedulers.levels import LEVELS

SHAPE = (1, 4, 4, 4)
_OF_DIFFUSERS = ("leading", "trailing", "linspace", "karras", "exponential", "beta", "lu")
_OURS = tuple(spacing for spacing in SPACINGS if spacing not in _OF_DIFFUSERS)
# The others are compared with their published rules: tests/runtime/schedulers/test_spacings.py.
_OURS_WITH_ALL = ("sgm_uniform", "ays")
SEED = 7
FLOW = "flow"
"""In the place of a prediction type: a model trained by flow matching, which has but one."""

SD15: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "timestep_spacing": "leading",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scheduler with a spacing, and the same as a config of diffusers."""

    sampler: str
    spacing: str
    prediction_type: str
    eta: float = 0.0
    zero_snr: bool = False

    @property
    def id(self) -> str:
        extra = f"-eta{self.eta:g}" if self.eta else ""
        return (
            f"{self.sampler}-{self.spacing}-{self.prediction_type}{extra}{'-zsnr' if self.zero_snr else ''}"
        )

    @property
    def model_config(self) -> dict[str, Any]:
        if self.prediction_type == FLOW:
            return {
                "_class_name": SAMPLERS[self.sampler].class_name,
                "num_train_timesteps": 1000,
                "shift": 3.0,
            }
        return {**SD15, "prediction_type": self.prediction_type, "rescale_betas_zero_snr": self.zero_snr}

    @property
    def diffusers_config(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"timestep_spacing": "linspace" if self.spacing in _OURS else self.spacing}
        if self.spacing in LEVELS:
            asked = {f"use_{self.spacing}_sigmas": True, "sigma_schedule": self.spacing}
        return {**self.model_config, **asked, **named_settings(self.sampler)}

    @property
    def scheduler(self) -> Scheduler:
        row = SAMPLERS[self.sampler]
        # A model trained as in EDM, or by flow matching, is one that says so.
        own = {"_class_name": row.class_name} if row.is_for_edm or row.is_for_flow else {}
        config = self.model_config | own
        return resolve_scheduler(self.sampler, config, self.spacing if row.spacings else None)

    def has_no_reference(self, steps: int) -> bool:
        """Whether diffusers takes no step where we do: one from a level to the same, or from the lowest down."""
        if self.sampler == "dpm_3m" and steps >= 15 and self.spacing in LEVELS:
            # The last step has no length, and diffusers divides by it.
            return True
        if steps > 1:
            return False
        repeats_last = self.sampler in ("deis", "sa_solver") and self.spacing in (
            "karras",
            "exponential",
            "beta",
        )
        return repeats_last or (self.sampler.startswith("edm") and self.spacing == "exponential")

    @property
    def grid_is_ours(self) -> bool:
        """Whether diffusers' class has no such spacing, so that only its arithmetic is compared."""
        row = SAMPLERS[self.sampler]
        if self.spacing in LEVELS:
            return self.spacing in _OURS or not {f"use_{self.spacing}_sigmas", "sigma_schedule"} & row.keys
        return self.spacing in _OURS or not row.own_levels or row.class_name == "DPMSolverSinglestepScheduler"


def named_settings(sampler: str) -> dict[str, Any]:
    """The keys of a diffusers config that make its class the one of several samplers."""
    row = SAMPLERS[sampler]
    named = {
        "algorithm_type": row.algorithm_type,
        "solver_type": row.solver_type,
        "solver_order": row.orders[-1] if row.orders else None,
        "final_sigmas_type": "sigma_min" if row.integrates_noise else None,
    }
    return {key: value for key, value in named.items() if value}


def all_cases() -> list[Case]:
    return list(_cases())


def recorded_cases() -> list[Case]:
    """Every sampler, with some of the spacings."""
    kept = ("leading", "trailing", "karras", "distilled")
    return [case for case in _cases() if case.spacing in kept or case.prediction_type == FLOW]


def _cases() -> Iterator[Case]:
    for name, row in SAMPLERS.items():
        # diffusers lays out the levels of two evaluations a step in its own way; only those it makes are compared.
        if not row.class_name:
            continue
        ours = _OURS_WITH_ALL if row.evaluations == 1 else ()
        spacings = tuple(s for s in row.spacings if s in (*_OF_DIFFUSERS, *ours))
        for spacing in spacings or ("distilled",):
            for prediction_type in (FLOW,) if row.is_for_flow else ("epsilon", "v_prediction"):
                for eta in (0.0, 0.6, 1.0) if row.eta is None else (0.0,):
                    yield Case(sampler=name, spacing=spacing, prediction_type=prediction_type, eta=eta)
            if "rescale_betas_zero_snr" in row.keys:
                yield Case(sampler=name, spacing=spacing, prediction_type="v_prediction", zero_snr=True)


def model(x: npt.NDArray[Any], timestep: float) -> npt.NDArray[Any]:
    """A smooth, bounded function in place of a U-Net."""
    output: npt.NDArray[Any] = np.tanh(0.8 * x + timestep / 1000) * (0.7 + 0.3 * np.cos(timestep / 300))
    return output


def denoiser(scheduler: Scheduler, plan: Plan) -> Callable[[npt.NDArray[Any], float], npt.NDArray[Any]]:
    def denoise(x: npt.NDArray[Any], sigma: float) -> npt.NDArray[Any]:
        c_skip, c_out, c_in = scheduler.noise_schedule.scalings(sigma)
        return c_skip * x + c_out * model(c_in * x, plan.timestep(sigma))

    return denoise


def run(scheduler: Scheduler, num_inference_steps: int, *, eta: float = 0.0) -> npt.NDArray[np.float64]:
    """Latents as in diffusers, after each step [steps, *SHAPE], from SEED's noise."""
    generator = Generator(SEED)
    plan = scheduler.plan(num_inference_steps)
    x = generator.randn(SHAPE) * plan.init_scale
    steps = scheduler.sample(
        denoiser(scheduler, plan), x, plan, noise=lambda: generator.randn(SHAPE), eta=eta
    )
    return np.stack([step.x * plan.latents_scale(step.sigma) for step in steps]).astype(np.float64)


def tolerance_of(case: Case, usual: float) -> float:
    """How far a run may be from its reference.

    From zero terminal SNR, the first steps of the first DPM-Solver's SDE leave noise in a state that is far above its
    level, 4096, and so its rounding too: 2.6e-5 is the largest measured.
    """
    return 20 * usual if case.sampler == "dpm_2m_sde" and case.zero_snr else usual


def worst_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """The largest difference after any step, relative to the largest latent at that step."""
    axes = tuple(range(1, expected.ndim))
    scale = np.abs(expected).max(axis=axes)
    return float((np.abs(found - expected).max(axis=axes) / scale).max())
