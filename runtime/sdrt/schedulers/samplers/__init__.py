"""Integration rules. A sampler knows a denoiser and noise levels, but no models, prompts or guidance."""

from __future__ import annotations

from sdrt.schedulers.samplers.base import (
    AdaptiveState,
    Denoise,
    Latents,
    Noise,
    SamplerOptions,
    States,
    thresholded,
)
from sdrt.schedulers.samplers.consistency import lcm, tcd
from sdrt.schedulers.samplers.dpm_steps import dpm_adaptive, dpm_fast
from sdrt.schedulers.samplers.euler import ancestral, ancestral_cfgpp, ddpm, dpm2, heun, restart
from sdrt.schedulers.samplers.exponential import (
    dpm_multistep,
    dpm_singlestep,
    dpmpp_2s_ancestral,
    dpmpp_multistep,
    dpmpp_sde,
    dpmpp_singlestep,
    sa_solver,
    unipc,
)
from sdrt.schedulers.samplers.linear_multistep import deis, ipndm, lms, pndm

__all__ = [
    "AdaptiveState",
    "Denoise",
    "Latents",
    "Noise",
    "SamplerOptions",
    "States",
    "ancestral",
    "ancestral_cfgpp",
    "ddpm",
    "deis",
    "dpm2",
    "dpm_adaptive",
    "dpm_fast",
    "dpm_multistep",
    "dpm_singlestep",
    "dpmpp_2s_ancestral",
    "dpmpp_multistep",
    "dpmpp_sde",
    "dpmpp_singlestep",
    "heun",
    "ipndm",
    "lcm",
    "lms",
    "pndm",
    "restart",
    "sa_solver",
    "tcd",
    "thresholded",
    "unipc",
]
