"""DDIM, DDPM, PLMS and iPNDM."""

from __future__ import annotations

from sdrt.schedulers import evaluations, samplers
from sdrt.schedulers.table.row import CLIP_KEYS, LEVEL_KEYS, THRESHOLD_KEYS, SamplerRow
from sdrt.schedulers.table.spacings import EVEN_SPACINGS

__all__ = ["DDPM"]

_DDIM_KEYS = CLIP_KEYS | THRESHOLD_KEYS | {"rescale_betas_zero_snr", "set_alpha_to_one"}

DDPM = (
    SamplerRow(
        name="ddim",
        display_name="DDIM",
        class_name="DDIMScheduler",
        order=1,
        integrate=samplers.ancestral,
        plan=evaluations.ddim_plan,
        spacings=EVEN_SPACINGS,
        defaults={"timestep_spacing": "leading", "clip_sample": True, "set_alpha_to_one": True},
        keys=_DDIM_KEYS,
        automatic="leading",
        eta=None,
        zero_snr_alpha=2.0**-48,
    ),
    SamplerRow(
        name="ddim_cfgpp",
        display_name="DDIM CFG++",
        class_name="",
        own_levels=False,
        order=1,
        integrate=samplers.ancestral_cfgpp,
        plan=evaluations.ddim_plan,
        spacings=EVEN_SPACINGS,
        defaults={"timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": True},
        keys=_DDIM_KEYS,
        automatic="leading",
        eta=None,
        zero_snr_alpha=2.0**-48,
        needs_unconditional=True,
        # A1111's and Forge's, so that the usual scales stay usual.
        guidance_share=1 / 12.5,
    ),
    SamplerRow(
        name="ddpm",
        display_name="DDPM",
        class_name="DDPMScheduler",
        order=1,
        integrate=samplers.ddpm,
        plan=evaluations.ddpm_plan,
        spacings=EVEN_SPACINGS,
        defaults={"timestep_spacing": "leading", "clip_sample": True, "variance_type": "fixed_small"},
        keys=CLIP_KEYS | THRESHOLD_KEYS | {"rescale_betas_zero_snr", "variance_type"},
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
        integrate=samplers.pndm,
        plan=evaluations.pndm_plan,
        skip=evaluations.skip_plms,
        spacings=EVEN_SPACINGS,
        defaults={"timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
        automatic="leading",
        keys=frozenset({"set_alpha_to_one", "skip_prk_steps"}),
    ),
    SamplerRow(
        name="ipndm",
        display_name="iPNDM",
        class_name="IPNDMScheduler",
        own_levels=False,
        order=4,
        integrate=samplers.ipndm,
        plan=evaluations.euler_plan,
        keys=LEVEL_KEYS,
    ),
)
