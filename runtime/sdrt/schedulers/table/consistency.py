"""LCM and TCD, for models that were distilled on a few steps."""

from __future__ import annotations

from sdrt.schedulers import evaluations, samplers
from sdrt.schedulers.table.row import CLIP_KEYS, THRESHOLD_KEYS, SamplerRow

__all__ = ["CONSISTENCY"]

_CONSISTENCY_DEFAULTS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
}

CONSISTENCY = (
    SamplerRow(
        name="lcm",
        display_name="LCM",
        class_name="LCMScheduler",
        order=0,
        integrate=samplers.lcm,
        plan=evaluations.consistency_plan,
        spacings=(),
        defaults=_CONSISTENCY_DEFAULTS,
        keys=CLIP_KEYS
        | THRESHOLD_KEYS
        | {"rescale_betas_zero_snr", "original_inference_steps", "timestep_scaling"},
        eta=1.0,
        zero_snr_alpha=2.0**-48,
    ),
    SamplerRow(
        name="tcd",
        display_name="TCD",
        class_name="TCDScheduler",
        order=0,
        integrate=samplers.tcd,
        plan=evaluations.consistency_plan,
        spacings=(),
        defaults={**_CONSISTENCY_DEFAULTS, "final_sigmas_type": "sigma_min"},
        keys=frozenset({"rescale_betas_zero_snr", "original_inference_steps"}),
        eta=None,
        zero_snr_alpha=2.0**-48,
    ),
)
