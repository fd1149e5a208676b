"""Samplers of consistency models, which go to a clean image in every step and add noise again."""

from __future__ import annotations

import math

from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers.base import Denoise, Latents, SamplerOptions, States

__all__ = ["lcm", "tcd"]

_LCM_SIGMA_DATA = 0.5


def lcm(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """Multistep latent consistency sampling (Luo et al. 2023, arXiv:2310.04378, algorithm 2)."""
    for index, (sigma, target) in enumerate(plan.transfers):
        denoised = denoise(x, sigma)
        denoised = options.limit(denoised)
        scaled = plan.timesteps[index] * options.timestep_scaling
        spread = scaled**2 + _LCM_SIGMA_DATA**2
        c_skip, c_out = _LCM_SIGMA_DATA**2 / spread, scaled / math.sqrt(spread)
        # The boundary condition is of variance-preserving latents.
        denoised = c_out * denoised + c_skip * plan.latents_scale(sigma) * x
        x = denoised + target * options.noise() if target else denoised.copy()
        yield x, denoised


def tcd(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """Trajectory consistency sampling (Zheng et al. 2024, arXiv:2402.19159, algorithm 4); its γ is η here.

    From each level to one below the next, at (1 - γ) of its timestep, and up to it with noise.
    """
    for index, (sigma, target) in enumerate(plan.transfers):
        denoised = denoise(x, sigma)
        last = index == plan.num_planned - 1
        following = 0.0 if last else plan.timesteps[index + 1]
        below = float(plan.noise_schedule.sigma_at(math.floor((1 - options.eta) * following)))
        x = denoised + (below / sigma) * (x - denoised)
        if options.eta > 0 and not last:
            x += math.sqrt(max(target**2 - below**2, 0.0)) * options.noise()
        yield x, denoised
