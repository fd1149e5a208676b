"""The samplers and spacings there are, and what they are called. A new one is a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sdrt.schedulers import samplers, spacing
from sdrt.schedulers.config import Settings
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan

__all__ = ["SAMPLERS", "SPACINGS", "SamplerRow"]


@dataclass(frozen=True, kw_only=True)
class SamplerRow:
    """One sampler.

    Attributes:
        name: how users ask for it.
        display_name: A1111's name, written into pictures.
        class_name: the diffusers scheduler whose results it gives.
        aliases: other names; case, spaces and punctuation do not count, "+" does.
        integrate: the integration rule.
        plan: which noise levels are visited.
        spacings: names from SPACINGS that it takes.
        defaults: what that class takes for missing keys, where it differs from Settings.
        keys: what that class reads besides the keys that all read.
        eta: the share of fresh noise, or None where the caller decides.
        zero_snr_alpha: ᾱ in place of 0 at zero terminal SNR: diffusers' 2⁻²⁴, or where diffusers computes
            with 0 itself, as little as leaves float32 no difference.
    """

    name: str
    display_name: str
    class_name: str
    aliases: tuple[str, ...]
    integrate: Callable[[samplers.Denoise, samplers.Latents, Plan, samplers.SamplerOptions], samplers.States]
    plan: Callable[[Settings, NoiseSchedule, int], Plan]
    spacings: tuple[str, ...]
    defaults: Mapping[str, Any]
    keys: frozenset[str]
    eta: float | None = 0.0
    zero_snr_alpha: float = 2.0**-24

    @property
    def known_keys(self) -> frozenset[str]:
        """Every config key that this class reads."""
        return _SHARED_KEYS | self.keys


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
_EVEN = ("leading", "trailing", "linspace")

SPACINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "leading": {"timestep_spacing": "leading", "use_karras_sigmas": False},
        "trailing": {"timestep_spacing": "trailing", "use_karras_sigmas": False},
        "linspace": {"timestep_spacing": "linspace", "use_karras_sigmas": False},
        # The timestep spacing stays: for Euler it sets the range's ends and the scale of the first noise.
        "karras": {"use_karras_sigmas": True},
    }
)

_ROWS = (
    SamplerRow(
        name="euler",
        display_name="Euler",
        class_name="EulerDiscreteScheduler",
        aliases=(),
        integrate=samplers.ancestral,
        plan=spacing.interpolated_plan,
        spacings=(*_EVEN, "karras"),
        defaults={"timestep_spacing": "linspace"},
        keys=frozenset(
            {
                "rescale_betas_zero_snr",
                "use_karras_sigmas",
                "use_exponential_sigmas",
                "use_beta_sigmas",
                "sigma_min",
                "sigma_max",
                "final_sigmas_type",
                "interpolation_type",
                "timestep_type",
            }
        ),
    ),
    SamplerRow(
        name="euler_a",
        display_name="Euler a",
        class_name="EulerAncestralDiscreteScheduler",
        aliases=("euler ancestral",),
        integrate=samplers.ancestral,
        plan=spacing.interpolated_plan,
        spacings=(*_EVEN, "karras"),
        defaults={"timestep_spacing": "linspace"},
        keys=frozenset({"rescale_betas_zero_snr"}),
        eta=1.0,
    ),
    SamplerRow(
        name="ddim",
        display_name="DDIM",
        class_name="DDIMScheduler",
        aliases=(),
        integrate=samplers.ancestral,
        plan=spacing.whole_plan,
        spacings=_EVEN,
        defaults={"timestep_spacing": "leading", "clip_sample": True, "set_alpha_to_one": True},
        keys=frozenset(
            {"rescale_betas_zero_snr", "clip_sample", "clip_sample_range", "set_alpha_to_one", "thresholding"}
        ),
        eta=None,
        zero_snr_alpha=2.0**-48,
    ),
    SamplerRow(
        name="pndm",
        display_name="PLMS",
        class_name="PNDMScheduler",
        aliases=("plms",),
        integrate=samplers.plms,
        plan=spacing.multistep_plan,
        spacings=_EVEN,
        defaults={"timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
        keys=frozenset({"set_alpha_to_one", "skip_prk_steps"}),
    ),
    SamplerRow(
        name="dpmpp_2m",
        display_name="DPM++ 2M",
        class_name="DPMSolverMultistepScheduler",
        aliases=("dpm++ 2m", "dpmsolver++"),
        integrate=samplers.dpmpp_2m,
        plan=spacing.dpm_plan,
        spacings=(*_EVEN, "karras"),
        defaults={"timestep_spacing": "linspace"},
        keys=frozenset(
            {
                "rescale_betas_zero_snr",
                "use_karras_sigmas",
                "use_exponential_sigmas",
                "use_beta_sigmas",
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
                "euler_at_final",
                "lambda_min_clipped",
            }
        ),
    ),
)

SAMPLERS: Mapping[str, SamplerRow] = MappingProxyType({row.name: row for row in _ROWS})
