"""Euler, Heun, DPM2 and LMS, as k-diffusion has them."""

from __future__ import annotations

from sdrt.schedulers import evaluations, own_levels, samplers
from sdrt.schedulers.table.row import CLIP_KEYS, K_DEFAULTS, LEVEL_KEYS, SamplerRow

__all__ = ["K_DIFFUSION"]

K_DIFFUSION = (
    SamplerRow(
        name="euler",
        display_name="Euler",
        class_name="EulerDiscreteScheduler",
        order=1,
        integrate=samplers.ancestral,
        plan=evaluations.euler_plan,
        keys=LEVEL_KEYS
        | {
            "rescale_betas_zero_snr",
            "sigma_min",
            "sigma_max",
            "final_sigmas_type",
            "interpolation_type",
            "timestep_type",
        },
        on_flow="flow_euler",
    ),
    SamplerRow(
        name="euler_a",
        display_name="Euler a",
        class_name="EulerAncestralDiscreteScheduler",
        aliases=("euler ancestral",),
        order=1,
        integrate=samplers.ancestral,
        plan=evaluations.euler_plan,
        keys=frozenset({"rescale_betas_zero_snr"}),
        eta=1.0,
    ),
    SamplerRow(
        name="heun",
        display_name="Heun",
        class_name="HeunDiscreteScheduler",
        order=2,
        evaluations=2,
        integrate=samplers.heun,
        plan=evaluations.heun_plan,
        defaults=K_DEFAULTS,
        keys=LEVEL_KEYS | CLIP_KEYS,
        on_flow="flow_heun",
    ),
    SamplerRow(
        name="dpm2",
        display_name="DPM2",
        class_name="KDPM2DiscreteScheduler",
        order=2,
        evaluations=2,
        integrate=samplers.dpm2,
        plan=evaluations.dpm2_plan,
        defaults=K_DEFAULTS,
        automatic="karras",
        keys=LEVEL_KEYS,
    ),
    SamplerRow(
        name="dpm2_a",
        display_name="DPM2 a",
        class_name="KDPM2AncestralDiscreteScheduler",
        aliases=("dpm2 ancestral",),
        order=1,
        evaluations=2,
        integrate=samplers.dpm2,
        plan=evaluations.dpm2_ancestral_plan,
        defaults=K_DEFAULTS,
        automatic="karras",
        keys=LEVEL_KEYS,
        eta=1.0,
    ),
    SamplerRow(
        name="restart",
        display_name="Restart",
        class_name="",
        own_levels=False,
        order=2,
        evaluations=2,
        integrate=samplers.restart,
        plan=own_levels.restart_plan,
        skip=own_levels.skip_restart,
        defaults=K_DEFAULTS,
        keys=LEVEL_KEYS,
        automatic="karras",
        eta=1.0,
        rises=True,
    ),
    SamplerRow(
        name="lms",
        display_name="LMS",
        class_name="LMSDiscreteScheduler",
        order=4,
        integrate=samplers.lms,
        plan=evaluations.euler_plan,
        keys=LEVEL_KEYS,
    ),
)
