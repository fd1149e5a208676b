"""DPM-Solver++ in its variants, DEIS, UniPC and SA-Solver."""

from __future__ import annotations

from typing import Any

from sdrt.schedulers import evaluations, own_levels, samplers
from sdrt.schedulers.config import NOISE_ALGORITHMS
from sdrt.schedulers.table.row import K_DEFAULTS, LEVEL_KEYS, THRESHOLD_KEYS, SamplerRow

__all__ = ["DPM_SOLVER"]

_DPM_KEYS = (
    LEVEL_KEYS
    | THRESHOLD_KEYS
    | {
        "use_flow_sigmas",
        "use_dynamic_shifting",
        "variance_type",
        "final_sigmas_type",
        "algorithm_type",
        "solver_order",
        "solver_type",
        "lower_order_final",
        "lambda_min_clipped",
    }
)
DPM_SYNONYMS = {
    "algorithm_type": {"deis": "dpmsolver++", "data_prediction": "dpmsolver++"},
    "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
}
_MULTISTEP_KEYS = _DPM_KEYS | {"use_lu_lambdas", "rescale_betas_zero_snr", "euler_at_final"}


def _dpmpp_multistep(name: str, display_name: str, **about: Any) -> SamplerRow:
    return SamplerRow(
        name=name,
        display_name=display_name,
        class_name="DPMSolverMultistepScheduler",
        integrate=samplers.dpm_multistep
        if about["algorithm_type"] in NOISE_ALGORITHMS
        else samplers.dpmpp_multistep,
        plan=evaluations.dpm_plan,
        keys=_MULTISTEP_KEYS,
        synonyms=DPM_SYNONYMS,
        **about,
    )


def _dpmpp_singlestep(name: str, display_name: str, **about: Any) -> SamplerRow:
    return SamplerRow(
        name=name,
        display_name=display_name,
        class_name="DPMSolverSinglestepScheduler",
        integrate=samplers.dpm_singlestep
        if about["algorithm_type"] in NOISE_ALGORITHMS
        else samplers.dpmpp_singlestep,
        plan=evaluations.dpm_plan,
        # diffusers' class knows no other spacing of timesteps; here they may be asked for.
        defaults={"lower_order_final": False},
        ignores=frozenset({"timestep_spacing"}),
        keys=_DPM_KEYS,
        synonyms=DPM_SYNONYMS,
        **about,
    )


DPM_SOLVER = (
    _dpmpp_multistep(
        "dpmpp_2m",
        "DPM++ 2M",
        aliases=("dpm++ 2m", "dpmsolver++"),
        order=2,
        algorithm_type="dpmsolver++",
        orders=(1, 2),
        automatic="karras",
    ),
    _dpmpp_multistep(
        "dpmpp_3m",
        "DPM++ 3M",
        order=2,
        algorithm_type="dpmsolver++",
        orders=(3,),
    ),
    _dpmpp_singlestep("dpmpp_2s", "DPM++ 2S", order=2, algorithm_type="dpmsolver++", orders=(1, 2)),
    _dpmpp_singlestep("dpmpp_3s", "DPM++ 3S", order=3, algorithm_type="dpmsolver++", orders=(3,)),
    SamplerRow(
        name="dpmpp_2s_a",
        display_name="DPM++ 2S a",
        class_name="",
        own_levels=False,
        aliases=("dpmpp_2s_ancestral",),
        order=1,
        evaluations=2,
        integrate=samplers.dpmpp_2s_ancestral,
        plan=evaluations.ancestral_middle_plan,
        defaults=K_DEFAULTS,
        keys=LEVEL_KEYS,
        automatic="karras",
        eta=1.0,
    ),
    SamplerRow(
        name="dpmpp_sde",
        display_name="DPM++ SDE",
        class_name="DPMSolverSDEScheduler",
        order=1,
        evaluations=2,
        integrate=samplers.dpmpp_sde,
        plan=evaluations.dpm_sde_plan,
        defaults=K_DEFAULTS,
        automatic="karras",
        keys=LEVEL_KEYS,
        eta=1.0,
    ),
    _dpmpp_multistep(
        "dpmpp_2m_sde_heun",
        "DPM++ 2M SDE Heun",
        order=1,
        algorithm_type="sde-dpmsolver++",
        solver_type="heun",
        orders=(1, 2),
        automatic="exponential",
        eta=1.0,
    ),
    _dpmpp_multistep(
        "dpmpp_2m_sde",
        "DPM++ 2M SDE",
        order=1,
        algorithm_type="sde-dpmsolver++",
        orders=(1, 2),
        automatic="exponential",
        eta=1.0,
    ),
    _dpmpp_multistep(
        "dpmpp_3m_sde",
        "DPM++ 3M SDE",
        order=1,
        algorithm_type="sde-dpmsolver++",
        orders=(3,),
        automatic="exponential",
        eta=1.0,
    ),
    _dpmpp_multistep("dpm_2m", "DPM-Solver 2M", order=2, algorithm_type="dpmsolver", orders=(1, 2)),
    _dpmpp_multistep("dpm_3m", "DPM-Solver 3M", order=2, algorithm_type="dpmsolver", orders=(3,)),
    _dpmpp_multistep(
        "dpm_2m_sde",
        "DPM-Solver 2M SDE",
        order=1,
        algorithm_type="sde-dpmsolver",
        orders=(1, 2),
        eta=1.0,
    ),
    _dpmpp_singlestep("dpm_2s", "DPM-Solver 2S", order=2, algorithm_type="dpmsolver", orders=(1, 2)),
    _dpmpp_singlestep("dpm_3s", "DPM-Solver 3S", order=3, algorithm_type="dpmsolver", orders=(3,)),
    SamplerRow(
        name="dpm_fast",
        display_name="DPM fast",
        class_name="",
        own_levels=False,
        order=1,
        integrate=samplers.dpm_fast,
        plan=own_levels.fast_plan,
        skip=own_levels.skip_fast,
        spacings=(),
        defaults=K_DEFAULTS,
        eta=1.0,
        rises=True,
    ),
    SamplerRow(
        name="dpm_adaptive",
        display_name="DPM adaptive",
        class_name="",
        own_levels=False,
        order=1,
        integrate=samplers.dpm_adaptive,
        plan=own_levels.adaptive_plan,
        skip=own_levels.skip_adaptive,
        spacings=(),
        defaults=K_DEFAULTS,
        eta=1.0,
        chooses_steps=True,
    ),
    SamplerRow(
        name="deis",
        display_name="DEIS",
        class_name="DEISMultistepScheduler",
        order=2,
        integrate=samplers.deis,
        plan=evaluations.dpm_plan,
        orders=(1, 3, 2),
        defaults={
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "final_sigmas_type": "sigma_min",
        },
        keys=LEVEL_KEYS
        | THRESHOLD_KEYS
        | {
            "use_flow_sigmas",
            "use_dynamic_shifting",
            "algorithm_type",
            "solver_order",
            "solver_type",
            "lower_order_final",
        },
        algorithm_type="deis",
        synonyms={
            "algorithm_type": dict.fromkeys(
                ("dpmsolver", "dpmsolver++", "sde-dpmsolver++", "data_prediction"), "deis"
            ),
            "solver_type": {"midpoint": "logrho", "heun": "logrho", "bh1": "logrho", "bh2": "logrho"},
        },
        allowed={"algorithm_type": ("deis",), "solver_type": ("logrho",)},
    ),
    SamplerRow(
        name="unipc",
        display_name="UniPC",
        class_name="UniPCMultistepScheduler",
        order=3,
        integrate=samplers.unipc,
        plan=evaluations.dpm_plan,
        orders=(1, 3, 2),
        aliases=("uni_pc_bh2",),
        defaults={"solver_type": "bh2"},
        automatic="linspace",
        keys=LEVEL_KEYS
        | THRESHOLD_KEYS
        | {
            "rescale_betas_zero_snr",
            "use_flow_sigmas",
            "use_dynamic_shifting",
            "final_sigmas_type",
            "solver_order",
            "solver_type",
            "lower_order_final",
            "disable_corrector",
            "predict_x0",
            "solver_p",
        },
        synonyms={"solver_type": {"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}},
        allowed={"solver_type": ("bh1", "bh2")},
    ),
    SamplerRow(
        name="sa_solver",
        display_name="SA-Solver",
        class_name="SASolverScheduler",
        order=1,
        integrate=samplers.sa_solver,
        plan=evaluations.dpm_plan,
        defaults={
            "algorithm_type": "data_prediction",
            "final_sigmas_type": "sigma_min",
        },
        keys=LEVEL_KEYS
        | THRESHOLD_KEYS
        | {
            "use_flow_sigmas",
            "variance_type",
            "algorithm_type",
            "predictor_order",
            "corrector_order",
            "tau_func",
            "lower_order_final",
            "lambda_min_clipped",
        },
        synonyms={
            "algorithm_type": dict.fromkeys(
                ("dpmsolver", "dpmsolver++", "sde-dpmsolver++", "deis"), "data_prediction"
            )
        },
        allowed={"algorithm_type": ("data_prediction",)},
        eta=1.0,
    ),
)
