"""Schedulers for models trained as in EDM."""

from __future__ import annotations

from sdrt.schedulers import evaluations, samplers
from sdrt.schedulers.edm_schedule import build_edm_schedule
from sdrt.schedulers.table.dpm_solver import DPM_SYNONYMS
from sdrt.schedulers.table.row import THRESHOLD_KEYS, SamplerRow

__all__ = ["EDM"]

_EDM_KEYS = frozenset({"sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho", "final_sigmas_type"})

EDM = (
    SamplerRow(
        name="edm_euler",
        display_name="EDM Euler",
        class_name="EDMEulerScheduler",
        order=1,
        integrate=samplers.ancestral,
        plan=evaluations.edm_plan,
        spacings=("karras", "exponential"),
        automatic="karras",
        defaults={"sigma_schedule": "karras"},
        keys=_EDM_KEYS,
        schedule=build_edm_schedule,
    ),
    SamplerRow(
        name="edm_dpmpp_2m",
        display_name="EDM DPM++ 2M",
        class_name="EDMDPMSolverMultistepScheduler",
        order=2,
        integrate=samplers.dpmpp_multistep,
        plan=evaluations.edm_plan,
        spacings=("karras", "exponential"),
        automatic="karras",
        defaults={"sigma_schedule": "karras"},
        keys=_EDM_KEYS
        | THRESHOLD_KEYS
        | {
            "algorithm_type",
            "solver_order",
            "solver_type",
            "lower_order_final",
            "euler_at_final",
        },
        algorithm_type="dpmsolver++",
        orders=(1, 2),
        synonyms=DPM_SYNONYMS,
        allowed={"algorithm_type": ("dpmsolver++", "sde-dpmsolver++")},
        schedule=build_edm_schedule,
    ),
)
