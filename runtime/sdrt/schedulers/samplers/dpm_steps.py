"""DPM-Solver's rules that begin anew in each step, with planned steps or with steps that the sampler chooses.

Lu et al. 2022, arXiv:2206.00927, algorithms 1 and 2 and appendix C, as k-diffusion has them. For x = clean + σ·ε, an
integral of a constant ε from σ to σ' is (σ' - σ)·ε, and h = log(σ/σ').
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from sdrt.errors import RequestError
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers.base import (
    AdaptiveState,
    Denoise,
    Latents,
    SamplerOptions,
    States,
    log_ratio,
)
from sdrt.schedulers.samplers.euler import ancestral_split

__all__ = ["dpm_adaptive", "dpm_fast", "lowered", "stage_levels"]

# k-diffusion's defaults.
_RELATIVE, _ABSOLUTE = 0.05, 0.0078
_FIRST_STEP, _ACCEPTED = 0.05, 0.81
_ORDER_WITH_NOISE = 1.5
_NEARLY_THERE = 1e-5
_SMALLEST_STEP = 1e-4


def lowered(sigma: float, target: float, lowest: float, eta: float) -> tuple[float, float]:
    """Noise level to step down to, but not below `lowest`, and the one to add to reach `target`."""
    down = max(ancestral_split(sigma, target, eta)[0], lowest)
    return down, math.sqrt(max(target**2 - down**2, 0.0))


def stage_levels(sigma: float, down: float, order: int) -> list[float]:
    """The levels at which a step of order 1 to 3 from `sigma` to `down` evaluates the model, even in log σ."""
    return [sigma * (down / sigma) ** (stage / order) for stage in range(order)]


def dpm_fast(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DPM-Solver-fast: even steps in log σ of order 3, and one or two of a lower order at the end."""
    first, slopes = x, list[Latents]()
    for index, (sigma, target) in enumerate(plan.transfers):
        level, last = plan.sigmas[index], plan.is_last_of_step(index)
        denoised = denoise(x, level)
        if level == sigma:
            first, slopes = denoised, []
        slopes.append((x - denoised) / np.float32(level))
        if last:
            down, up = lowered(sigma, target, plan.sigmas[-1], options.eta)
            x = _solved(first, slopes, sigma, down) + np.float32(up) * options.noise()
        else:
            x = _stage(first, slopes, sigma, target, level)
        yield x, denoised


def dpm_adaptive(
    denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions
) -> Iterator[AdaptiveState]:
    """DPM-Solver-23: steps of order 3, as long as their difference from order 2 allows.

    Images of one batch take the same steps.

    Raises:
        RequestError: no step is short enough, because the model's estimates jump.
    """
    sigma, lowest = plan.sigmas
    h, before = _FIRST_STEP, x
    order = _ORDER_WITH_NOISE if options.eta else 3.0
    while log_ratio(sigma, lowest) > _NEARLY_THERE:
        if h < _SMALLEST_STEP:
            raise RequestError.advised(
                f"scheduler 'dpm_adaptive' finds no step that is short enough at noise level {sigma:.4g}",
                "choose another",
                argument="scheduler",
            )
        target = max(sigma * math.exp(-h), lowest)
        down, up = lowered(sigma, target, lowest, options.eta)
        start, first, slopes = x, x, list[Latents]()
        levels = stage_levels(sigma, down, 3)
        for level, following in pairwise(levels):
            denoised = denoise(x, level)
            slopes.append((x - denoised) / np.float32(level))
            first = denoised if level == sigma else first
            x = _stage(first, slopes, sigma, following, level)
            yield AdaptiveState(x, denoised, level, following, False, False)
        denoised = denoise(x, levels[2])
        slopes.append((x - denoised) / np.float32(levels[2]))
        low, high = _second_order(first, slopes, sigma, down), _solved(first, slopes, sigma, down)
        share = _step_factor(_error(low, high, before), order)
        x, evaluated = start, sigma
        if share >= _ACCEPTED:
            x, before, sigma = high + np.float32(up) * options.noise(), low, target
        over = log_ratio(sigma, lowest) <= _NEARLY_THERE
        yield AdaptiveState(x, denoised, levels[2], sigma, sigma < evaluated, over)
        h *= share


def _error(low: Latents, high: Latents, before: Latents) -> float:
    """The root mean square of the two orders' difference, in units of what is tolerated."""
    tolerated = np.maximum(_ABSOLUTE, _RELATIVE * np.maximum(np.abs(low), np.abs(before)))
    return float(np.sqrt(np.mean(np.square((low - high) / tolerated, dtype=np.float64))))


def _step_factor(error: float, order: float) -> float:
    """By how much to change the length of the step, between 0.2 and 2.6: an integral controller."""
    factor = (1 / (error + 1e-8)) ** (1 / order)
    return 1 + math.atan(factor - 1)


def _stage(first: Latents, slopes: list[Latents], sigma: float, target: float, level: float) -> Latents:
    """The state at the next level of a step's evaluations, from those before it, the last one at `level`.

    `first` is the estimate at the start. With it, nothing large cancels.
    """
    moved: Latents = first + np.float32(target) * slopes[0]
    if len(slopes) > 1:
        length, ratio = log_ratio(sigma, target), log_ratio(sigma, target) / log_ratio(sigma, level)
        moved += np.float32(-ratio * ((sigma - target) / length - target)) * (slopes[1] - slopes[0])
    return moved


def _solved(first: Latents, slopes: list[Latents], sigma: float, down: float) -> Latents:
    """The end of a step: of the order of the number of slopes."""
    moved: Latents = first + np.float32(down) * slopes[0]
    if len(slopes) == 2:
        moved += np.float32(down - sigma) * (slopes[1] - slopes[0])
    if len(slopes) == 3:
        weight = -3 / 2 * ((sigma - down) / log_ratio(sigma, down) - down)
        moved += np.float32(weight) * (slopes[2] - slopes[0])
    return moved


def _second_order(first: Latents, slopes: list[Latents], sigma: float, down: float) -> Latents:
    """The end of a step of order 2 whose second slope is at a third of it."""
    moved: Latents = first + np.float32(down) * slopes[0]
    moved += np.float32(3 / 2 * (down - sigma)) * (slopes[1] - slopes[0])
    return moved
