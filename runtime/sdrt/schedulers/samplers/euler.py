"""Samplers of one slope, or of two within a step: Euler, DDIM, Heun, DPM2."""

from __future__ import annotations

import math

import numpy as np

from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers.base import Denoise, Latents, SamplerOptions, States

__all__ = ["ancestral", "ancestral_cfgpp", "ancestral_split", "ddpm", "dpm2", "heun", "restart"]


def ancestral(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """Euler with fresh noise: η = 0 is Euler and DDIM, η = 1 is Euler ancestral and DDPM.

    With η = 0 it is Euler in flow matching too: (x - denoised)/σ is the velocity there, as it is ε elsewhere.
    DDIM's equation 16 (Song et al. 2020, arXiv:2010.02502) divided by √ᾱ of the level stepped to.
    """
    for sigma, target in plan.transfers:
        denoised = denoise(x, sigma)
        down, up = ancestral_split(sigma, target, options.eta)
        direction = (x - denoised) * (down / sigma)
        denoised = options.limit(denoised)
        x = denoised + direction
        if options.eta > 0:
            # Drawn even where `up` is 0, so that the stream stays in step with diffusers'.
            x += options.noise() * up
        yield x, denoised


def ancestral_cfgpp(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DDIM with CFG++ (Chung et al. 2024, arXiv:2406.08070, algorithm 2): the new noise is that of no prompt."""
    assert options.unconditional is not None
    for sigma, target in plan.transfers:
        denoised = denoise(x, sigma)
        down, up = ancestral_split(sigma, target, options.eta)
        direction = (x - options.unconditional()) * (down / sigma)
        x = options.limit(denoised) + direction
        if options.eta > 0:
            x += options.noise() * up
        yield x, denoised


def ddpm(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """Ancestral sampling with the smaller variance (Ho et al. 2020, arXiv:2006.11239, equations 6 and 7).

    Euler ancestral, but that a clipped image changes the direction too.
    """
    for sigma, target in plan.transfers:
        denoised = denoise(x, sigma)
        denoised = options.limit(denoised)
        down, up = ancestral_split(sigma, target, 1.0)
        x = (1 - down / sigma) * denoised + (down / sigma) * x + up * options.noise()
        yield x, denoised


def ancestral_split(sigma: float, target: float, eta: float) -> tuple[float, float]:
    """Noise level to step down to, and the one to add, whose squares sum to target²."""
    up = eta * target * math.sqrt(max(sigma**2 - target**2, 0.0)) / sigma
    return math.sqrt(max(target**2 - up**2, 0.0)), up


def heun(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """Heun's trapezoid, without churn (Karras et al. 2022, arXiv:2206.00364, algorithm 1)."""
    start, first = x, x
    for index, (sigma, target) in enumerate(plan.transfers):
        denoised = denoise(x, plan.sigmas[index])
        denoised = options.limit(denoised)
        slope = (x - denoised) / np.float32(plan.sigmas[index])
        if index % 2 == 0:
            start, first = x, slope
            x = x + slope * (target - sigma)
        else:
            x = start + (first + slope) * ((target - sigma) / 2)
        yield x, denoised


def restart(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """Restart (Xu et al. 2023, arXiv:2306.14878, algorithm 2): Heun, which the plan sends back up with fresh noise."""
    states = zip(heun(denoise, x, plan, options), plan.transfers, plan.sigmas[1:], strict=True)
    for (state, denoised), (_, target), level in states:
        if level > target:
            state += math.sqrt(level**2 - target**2) * options.noise()
        yield state, denoised


def dpm2(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DPM-Solver-2 in σ: the slope of the whole step is that at its geometric middle (k-diffusion's `sample_dpm_2`).

    With η = 1 each step goes further down and fresh noise is added, as in Euler ancestral.
    """
    start = x
    for index, (sigma, target) in enumerate(plan.transfers):
        denoised = denoise(x, plan.sigmas[index])
        slope = (x - denoised) / np.float32(plan.sigmas[index])
        if index % 2 == 0:
            start = x
            x = x + slope * (target - sigma)
        else:
            down, up = ancestral_split(sigma, target, options.eta)
            x = start + slope * (down - sigma)
            if options.eta > 0:
                x += options.noise() * up
        yield x, denoised
