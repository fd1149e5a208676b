"""Integration rules. A sampler knows a denoiser and noise levels; all else is its callers' work.

State x is float32 and variance exploding, x = clean + σ·noise; coefficients are Python floats. A sampler
yields (x, denoised) after each transfer and goes on from that very array, so a caller may write into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdrt.schedulers.plan import Plan, relabelling

__all__ = ["Denoise", "Noise", "SamplerOptions", "ancestral", "dpmpp_2m", "plms"]

Latents = npt.NDArray[np.float32]
Denoise = Callable[[Latents, float], Latents]
Noise = Callable[[], Latents]
States = Iterator[tuple[Latents, Latents]]


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """What a sampler may need besides the denoiser; each reads what concerns it.

    Attributes:
        noise: gives standard normal noise of x's shape.
        eta: share of the noise that is drawn afresh at each step, 0 to 1.
        clip_range: bound on the magnitude of `denoised`, or None.
        order: 1 or 2, for multistep samplers.
        midpoint: how order 2 weighs the slope: midpoint or Heun.
        first_order_last: whether the last step falls back to order 1.
    """

    noise: Noise
    eta: float = 0.0
    clip_range: float | None = None
    order: int = 2
    midpoint: bool = True
    first_order_last: bool = True


def ancestral(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """Euler with fresh noise: η = 0 is Euler and DDIM, η = 1 is Euler ancestral.

    DDIM's equation 16 (Song et al. 2020, arXiv:2010.02502) divided by √ᾱ of the level stepped to.
    """
    for sigma, target in plan.transfers:
        denoised = denoise(x, sigma)
        down, up = _split(sigma, target, options.eta)
        direction = (x - denoised) * (down / sigma)
        if options.clip_range is not None:
            denoised = np.clip(denoised, -options.clip_range, options.clip_range)
        x = denoised + direction
        if options.eta > 0:
            # Drawn even where `up` is 0, so that the stream stays in step with diffusers'.
            x += options.noise() * up
        yield x, denoised


def _split(sigma: float, target: float, eta: float) -> tuple[float, float]:
    """Noise level to step down to, and the one to add, whose squares sum to target²."""
    up = eta * target * math.sqrt(max(sigma**2 - target**2, 0.0)) / sigma
    return math.sqrt(max(target**2 - up**2, 0.0)), up


def dpmpp_2m(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2), h a step in -log σ."""
    previous, h_previous = x, 0.0
    for index, (sigma, target) in enumerate(plan.transfers):
        denoised = denoise(x, sigma)
        ratio = target / sigma
        x = ratio * x + (1 - ratio) * denoised
        h = -math.log(ratio) if target else math.inf
        lowered = options.first_order_last and index == len(plan.transfers) - 1
        if index > 0 and options.order > 1 and target and not lowered:
            x += _slope_weight(ratio, h, midpoint=options.midpoint) * (h / h_previous) * (denoised - previous)
        previous, h_previous = denoised, h
        yield x, denoised


def _slope_weight(ratio: float, h: float, *, midpoint: bool) -> float:
    """∫ of the slope's term over a step: (1 - e⁻ʰ)/2 taken at the midpoint, or 1 - (1 - e⁻ʰ)/h exactly."""
    if midpoint:
        return (1 - ratio) / 2
    return 1 - (1 - ratio) / h if h else 0.0


# Adams–Bashforth, newest first; the entry at 1 is the second half of the improved Euler start.
_PLMS_WEIGHTS = (
    (1.0,),
    (1 / 2, 1 / 2),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """PLMS, the linear multistep half of PNDM (Liu et al. 2022, arXiv:2202.09778, equations 9 and 12).

    The second timestep is evaluated twice: first to make the first step again with the mean of both ends.
    As in diffusers raw model outputs are mixed, which for v prediction is not the same as mixing ε.
    """
    start = x
    history: list[Latents] = []
    for index, (source, target) in enumerate(plan.transfers):
        c_skip, c_out, _ = plan.noise_schedule.scalings(plan.sigmas[index])
        denoised = denoise(x, plan.sigmas[index])
        newest = np.asarray((denoised - c_skip * x) / c_out, dtype=np.float32)
        history = [newest, *history[:3]]
        output = _mixed(_PLMS_WEIGHTS[min(index, 4)], history)
        if index == 1:
            x = start * relabelling(plan.sigmas[0], source)
            del history[0]
        c_skip, c_out, _ = plan.noise_schedule.scalings(source)
        denoised = c_skip * x + c_out * output
        x = denoised + (target / source) * (x - denoised)
        yield x, denoised


def _mixed(weights: tuple[float, ...], outputs: list[Latents]) -> Latents:
    mixed = weights[0] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        mixed = mixed + weight * output
    return mixed
