"""Integration rules. A sampler knows a denoiser and noise levels, but no models, prompts or guidance."""

from __future__ import annotations

from sdrt.schedulers.samplers.base import Denoise, Latents, Noise, SamplerOptions, States
from sdrt.schedulers.samplers.consistency import lcm, tcd
from sdrt.schedulers.samplers.euler import ancestral, ddpm, dpm2, heun
from sdrt.schedulers.samplers.exponential import (
    dpmpp_multistep,
    dpmpp_sde,
    dpmpp_singlestep,
    sa_solver,
    unipc,
)
from sdrt.schedulers.samplers.linear_multistep import deis, ipndm, lms, plms

__all__ = [
    "Denoise",
    "Latents",
    "Noise",
    "SamplerOptions",
    "States",
    "ancestral",
    "ddpm",
    "deis",
    "dpm2",
    "dpmpp_multistep",
    "dpmpp_sde",
    "dpmpp_singlestep",
    "heun",
    "ipndm",
    "lcm",
    "lms",
    "plms",
    "sa_solver",
    "tcd",
    "unipc",
]
