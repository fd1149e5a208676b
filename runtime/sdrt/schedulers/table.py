"""The samplers and spacings there are, and what they are called. A new one is a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sdrt.schedulers import samplers
from sdrt.schedulers import visits as plans
from sdrt.schedulers.config import Settings, build_edm_schedule, build_noise_schedule
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan

__all__ = ["SAMPLERS", "SPACINGS", "SPACING_LABELS", "SamplerRow"]

_EVEN = ("leading", "trailing", "linspace")
_ALL = (*_EVEN, "sgm_uniform", "karras", "exponential", "beta", "ays")


@dataclass(frozen=True, kw_only=True)
class SamplerRow:
    """One sampler.

    Attributes:
        name: how users ask for it.
        display_name: A1111's name, written into pictures.
        class_name: the diffusers scheduler whose results it gives.
        own_levels: what it does with the config of that class: False where diffusers' class has levels of its own that
            are not Stable Diffusion's, so that only its rule is taken.
        aliases: other names; case, spaces and punctuation do not count, "+" does.
        order: of convergence, once a multistep rule has its past; 0 for consistency models, which do not converge.
        evaluations: U-Net calls in a step, but for the last.
        integrate: the integration rule.
        plan: which noise levels are visited.
        skip: what is left of a plan that begins after some steps.
        spacings: names from SPACINGS that it takes.
        defaults: what that class takes for missing keys, where it differs from Settings.
        keys: what that class reads besides the keys that all read.
        ignores: of those, what it does not read.
        algorithm_type: what the config key of that name has to be, where several rows are of one class.
        orders: what `solver_order` may be; the last is meant where the sampler is asked for by name.
        synonyms: of other classes' values of a key, how diffusers' class reads them.
        allowed: keys of which this sampler takes fewer values than others do.
        eta: the share of fresh noise, or None where the caller decides.
        zero_snr_alpha: ᾱ in place of 0 at zero terminal SNR: diffusers' 2⁻²⁴, or where diffusers computes
            with 0 itself, as little as leaves float32 no difference.
        schedule: the training noise levels, from settings and that ᾱ.
    """

    name: str
    display_name: str
    class_name: str
    integrate: Callable[[samplers.Denoise, samplers.Latents, Plan, samplers.SamplerOptions], samplers.States]
    plan: Callable[[Settings, NoiseSchedule, int], Plan]
    order: int
    skip: Callable[[Settings, Plan, int, int], Plan] = plans.skip_evaluations
    aliases: tuple[str, ...] = ()
    own_levels: bool = True
    evaluations: int = 1
    spacings: tuple[str, ...] = _ALL
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    ignores: frozenset[str] = frozenset()
    algorithm_type: str | None = None
    orders: tuple[int, ...] = ()
    synonyms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    allowed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    eta: float | None = 0.0
    zero_snr_alpha: float = 2.0**-24
    schedule: Callable[[Settings, float], NoiseSchedule] = build_noise_schedule

    @property
    def takes_timesteps(self) -> bool:
        """Whether a call may choose the timesteps: PLMS's are even, and EDM has none of its own."""
        return self.plan not in (plans.pndm_plan, plans.edm_plan)

    @property
    def takes_sigmas(self) -> bool:
        """Whether a call may choose the noise levels: not where a rule goes by whole timesteps."""
        return "karras" in self.spacings

    @property
    def known_keys(self) -> frozenset[str]:
        """Every config key that this class reads."""
        return (_SHARED_KEYS | self.keys) - self.ignores


_SHARED_KEYS = frozenset(
    {
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "prediction_type",
        "timestep_spacing",
        "steps_offset",
    }
)
_LEVEL_KEYS = frozenset({"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"})
_CLIP_KEYS = frozenset({"clip_sample", "clip_sample_range"})

SPACINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "leading": {"timestep_spacing": "leading", "levels": None},
        "trailing": {"timestep_spacing": "trailing", "levels": None},
        "linspace": {"timestep_spacing": "linspace", "levels": None},
        "sgm_uniform": {"timestep_spacing": "sgm_uniform", "levels": None},
        # The timestep spacing stays: for Euler it sets the range's ends and the scale of the first noise.
        "karras": {"levels": "karras"},
        "exponential": {"levels": "exponential"},
        "beta": {"levels": "beta"},
        "ays": {"levels": "ays"},
    }
)

SPACING_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "sgm_uniform": "SGM Uniform",
        "karras": "Karras",
        "exponential": "Exponential",
        "beta": "Beta",
        "ays": "Align Your Steps",
    }
)
"""What A1111 appends to a sampler's name for a spacing; it has no words for the others."""

# What k-diffusion's classes have in common in diffusers.
_K_DEFAULTS: Mapping[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012}
_DPM_KEYS = _LEVEL_KEYS | {
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "variance_type",
    "thresholding",
    "final_sigmas_type",
    "algorithm_type",
    "solver_order",
    "solver_type",
    "lower_order_final",
    "lambda_min_clipped",
}
_DPM_SYNONYMS = {
    "algorithm_type": {"deis": "dpmsolver++", "data_prediction": "dpmsolver++"},
    "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
}
_CONSISTENCY_DEFAULTS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
}
_EDM_KEYS = frozenset({"sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho", "final_sigmas_type"})
_MULTISTEP_KEYS = _DPM_KEYS | {"rescale_betas_zero_snr", "euler_at_final"}


def _dpmpp_multistep(name: str, display_name: str, **about: Any) -> SamplerRow:
    return SamplerRow(
        name=name,
        display_name=display_name,
        class_name="DPMSolverMultistepScheduler",
        integrate=samplers.dpmpp_multistep,
        plan=plans.dpm_plan,
        keys=_MULTISTEP_KEYS,
        synonyms=_DPM_SYNONYMS,
        **about,
    )


def _dpmpp_singlestep(name: str, display_name: str, **about: Any) -> SamplerRow:
    return SamplerRow(
        name=name,
        display_name=display_name,
        class_name="DPMSolverSinglestepScheduler",
        integrate=samplers.dpmpp_singlestep,
        plan=plans.dpm_plan,
        # diffusers' class knows no other spacing of timesteps; here they may be asked for.
        defaults={"lower_order_final": False},
        ignores=frozenset({"timestep_spacing"}),
        keys=_DPM_KEYS,
        synonyms=_DPM_SYNONYMS,
        **about,
    )


_ROWS = (
    SamplerRow(
        name="euler",
        display_name="Euler",
        class_name="EulerDiscreteScheduler",
        order=1,
        integrate=samplers.ancestral,
        plan=plans.euler_plan,
        keys=_LEVEL_KEYS
        | {
            "rescale_betas_zero_snr",
            "sigma_min",
            "sigma_max",
            "final_sigmas_type",
            "interpolation_type",
            "timestep_type",
        },
    ),
    SamplerRow(
        name="euler_a",
        display_name="Euler a",
        class_name="EulerAncestralDiscreteScheduler",
        aliases=("euler ancestral",),
        order=1,
        integrate=samplers.ancestral,
        plan=plans.euler_plan,
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
        plan=plans.heun_plan,
        defaults=_K_DEFAULTS,
        keys=_LEVEL_KEYS | _CLIP_KEYS,
    ),
    SamplerRow(
        name="dpm2",
        display_name="DPM2",
        class_name="KDPM2DiscreteScheduler",
        order=2,
        evaluations=2,
        integrate=samplers.dpm2,
        plan=plans.dpm2_plan,
        defaults=_K_DEFAULTS,
        keys=_LEVEL_KEYS,
    ),
    SamplerRow(
        name="dpm2_a",
        display_name="DPM2 a",
        class_name="KDPM2AncestralDiscreteScheduler",
        aliases=("dpm2 ancestral",),
        order=1,
        evaluations=2,
        integrate=samplers.dpm2,
        plan=plans.dpm2_ancestral_plan,
        defaults=_K_DEFAULTS,
        keys=_LEVEL_KEYS,
        eta=1.0,
    ),
    SamplerRow(
        name="lms",
        display_name="LMS",
        class_name="LMSDiscreteScheduler",
        order=4,
        integrate=samplers.lms,
        plan=plans.euler_plan,
        keys=_LEVEL_KEYS,
    ),
    SamplerRow(
        name="ddim",
        display_name="DDIM",
        class_name="DDIMScheduler",
        order=1,
        integrate=samplers.ancestral,
        plan=plans.ddim_plan,
        spacings=_EVEN,
        defaults={"timestep_spacing": "leading", "clip_sample": True, "set_alpha_to_one": True},
        keys=_CLIP_KEYS | {"rescale_betas_zero_snr", "set_alpha_to_one", "thresholding"},
        eta=None,
        zero_snr_alpha=2.0**-48,
    ),
    SamplerRow(
        name="ddpm",
        display_name="DDPM",
        class_name="DDPMScheduler",
        order=1,
        integrate=samplers.ddpm,
        plan=plans.ddpm_plan,
        spacings=_EVEN,
        defaults={"timestep_spacing": "leading", "clip_sample": True, "variance_type": "fixed_small"},
        keys=_CLIP_KEYS | {"rescale_betas_zero_snr", "variance_type", "thresholding"},
        allowed={"variance_type": ("fixed_small", "fixed_small_log", None)},
        eta=1.0,
        # Its step keeps a share of x in proportion to this, where DDIM's does not.
        zero_snr_alpha=2.0**-53,
    ),
    SamplerRow(
        name="pndm",
        display_name="PLMS",
        class_name="PNDMScheduler",
        aliases=("plms",),
        order=4,
        integrate=samplers.plms,
        plan=plans.pndm_plan,
        skip=plans.skip_plms,
        spacings=_EVEN,
        defaults={"timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
        keys=frozenset({"set_alpha_to_one", "skip_prk_steps"}),
    ),
    SamplerRow(
        name="ipndm",
        display_name="iPNDM",
        class_name="IPNDMScheduler",
        own_levels=False,
        order=4,
        integrate=samplers.ipndm,
        plan=plans.euler_plan,
        keys=_LEVEL_KEYS,
    ),
    _dpmpp_multistep(
        "dpmpp_2m",
        "DPM++ 2M",
        aliases=("dpm++ 2m", "dpmsolver++"),
        order=2,
        algorithm_type="dpmsolver++",
        orders=(1, 2),
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
        name="dpmpp_sde",
        display_name="DPM++ SDE",
        class_name="DPMSolverSDEScheduler",
        order=1,
        evaluations=2,
        integrate=samplers.dpmpp_sde,
        plan=plans.dpm_sde_plan,
        defaults=_K_DEFAULTS,
        keys=_LEVEL_KEYS,
        eta=1.0,
    ),
    _dpmpp_multistep(
        "dpmpp_2m_sde",
        "DPM++ 2M SDE",
        order=1,
        algorithm_type="sde-dpmsolver++",
        orders=(1, 2),
        eta=1.0,
    ),
    _dpmpp_multistep(
        "dpmpp_3m_sde",
        "DPM++ 3M SDE",
        order=1,
        algorithm_type="sde-dpmsolver++",
        orders=(3,),
        eta=1.0,
    ),
    SamplerRow(
        name="deis",
        display_name="DEIS",
        class_name="DEISMultistepScheduler",
        order=2,
        integrate=samplers.deis,
        plan=plans.dpm_plan,
        orders=(1, 3, 2),
        defaults={
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "final_sigmas_type": "sigma_min",
        },
        keys=_LEVEL_KEYS
        | {
            "use_flow_sigmas",
            "use_dynamic_shifting",
            "thresholding",
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
        plan=plans.dpm_plan,
        orders=(1, 3, 2),
        defaults={"solver_type": "bh2"},
        keys=_LEVEL_KEYS
        | {
            "rescale_betas_zero_snr",
            "use_flow_sigmas",
            "use_dynamic_shifting",
            "thresholding",
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
        plan=plans.dpm_plan,
        defaults={
            "algorithm_type": "data_prediction",
            "final_sigmas_type": "sigma_min",
        },
        keys=_LEVEL_KEYS
        | {
            "use_flow_sigmas",
            "variance_type",
            "thresholding",
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
    SamplerRow(
        name="lcm",
        display_name="LCM",
        class_name="LCMScheduler",
        order=0,
        integrate=samplers.lcm,
        plan=plans.consistency_plan,
        spacings=(),
        defaults=_CONSISTENCY_DEFAULTS,
        keys=_CLIP_KEYS
        | {"rescale_betas_zero_snr", "thresholding", "original_inference_steps", "timestep_scaling"},
        eta=1.0,
        zero_snr_alpha=2.0**-48,
    ),
    SamplerRow(
        name="tcd",
        display_name="TCD",
        class_name="TCDScheduler",
        order=0,
        integrate=samplers.tcd,
        plan=plans.consistency_plan,
        spacings=(),
        defaults={**_CONSISTENCY_DEFAULTS, "final_sigmas_type": "sigma_min"},
        keys=frozenset({"rescale_betas_zero_snr", "original_inference_steps"}),
        eta=None,
        zero_snr_alpha=2.0**-48,
    ),
    SamplerRow(
        name="edm_euler",
        display_name="EDM Euler",
        class_name="EDMEulerScheduler",
        order=1,
        integrate=samplers.ancestral,
        plan=plans.edm_plan,
        spacings=("karras", "exponential"),
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
        plan=plans.edm_plan,
        spacings=("karras", "exponential"),
        defaults={"sigma_schedule": "karras"},
        keys=_EDM_KEYS
        | {
            "thresholding",
            "algorithm_type",
            "solver_order",
            "solver_type",
            "lower_order_final",
            "euler_at_final",
        },
        algorithm_type="dpmsolver++",
        orders=(1, 2),
        synonyms=_DPM_SYNONYMS,
        schedule=build_edm_schedule,
    ),
)

SAMPLERS: Mapping[str, SamplerRow] = MappingProxyType({row.name: row for row in _ROWS})
