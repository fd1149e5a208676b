"""What all samplers share: their types and options.

The state x is float32. The plan's noise schedule says what it is at each level. Rules that add noise or use log σ hold
only for variance-exploding states, x = clean + σ·noise. Rules that follow slopes dx/dσ = (x - denoised)/σ, such as
Euler and Heun, also hold for x = (1 - σ)·clean + σ·noise. Coefficients are Python floats. A sampler yields
(x, denoised) after each transfer and continues with the same array, so a caller may write into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "AdaptiveState",
    "Denoise",
    "Latents",
    "Noise",
    "SamplerOptions",
    "States",
    "log_ratio",
    "thresholded",
]

Latents = npt.NDArray[np.float32]
Denoise = Callable[[Latents, float], Latents]
Noise = Callable[[], Latents]
States = Iterator[tuple[Latents, Latents]]


class AdaptiveState(NamedTuple):
    """What a sampler that chooses its own steps yields after each evaluation."""

    x: Latents
    denoised: Latents
    evaluated: float
    """The noise level of the evaluation."""
    sigma: float
    """The noise level of x."""
    done: bool
    """Whether a step is done, rather than tried."""
    last: bool
    """Whether the run is over."""


def _same(denoised: Latents) -> Latents:
    return denoised


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Options of a sampler, besides the denoiser and the plan. Each sampler reads only the options that it supports.

    Attributes:
        noise: returns standard normal noise of x's shape.
        eta: the share of the noise that is drawn anew in each step, 0 to 1.
        limit: what a clipping or thresholding config does to `denoised`.
        unconditional: returns the estimate without the prompt in the last evaluation.
        order: the largest number of estimates, 1 to 3, that a step uses.
        corrector_order: the same for SA-Solver's corrector.
        solver_type: the form of a DPM-Solver or UniPC, by diffusers' names.
        lower_order_final: whether the order falls towards the last step.
        euler_at_final: whether the last step always has order 1.
        disable_corrector: the indices of steps that UniPC does not correct.
        timestep_scaling: how fast LCM's boundary condition leaves the start.
        skip_prk_steps: whether PNDM leaves out its Runge–Kutta steps.
    """

    noise: Noise
    eta: float = 0.0
    limit: Callable[[Latents], Latents] = _same
    unconditional: Callable[[], Latents] | None = None
    order: int = 2
    corrector_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    disable_corrector: tuple[int, ...] = ()
    timestep_scaling: float = 10.0
    skip_prk_steps: bool = True


def thresholded(denoised: Latents, *, ratio: float, most: float) -> Latents:
    """Dynamic thresholding (Saharia et al. 2022, arXiv:2205.11487, section 2.3), of each image [N, …] by itself.

    The bound is the quantile `ratio` of the magnitudes, at least 1 and at most `most`. What it bounds is divided by it.
    """
    flat = np.abs(denoised, dtype=np.float64).reshape(len(denoised), -1)
    bound = np.minimum(np.maximum(np.quantile(flat, ratio, axis=1), 1), most)
    bound = bound.reshape(-1, *[1] * (denoised.ndim - 1))
    return np.asarray(np.clip(denoised, -bound, bound) / bound, dtype=np.float32)


def log_ratio(sigma: float, target: float) -> float:
    """The distance from `sigma` down to `target` in -log σ; infinite if `target` is 0."""
    return math.log(sigma / target) if target else math.inf
