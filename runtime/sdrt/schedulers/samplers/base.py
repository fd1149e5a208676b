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

import numpy as np
import numpy.typing as npt

__all__ = ["Denoise", "Latents", "Noise", "SamplerOptions", "States", "log_ratio"]

Latents = npt.NDArray[np.float32]
Denoise = Callable[[Latents, float], Latents]
Noise = Callable[[], Latents]
States = Iterator[tuple[Latents, Latents]]


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Options of a sampler, besides the denoiser and the plan. Each sampler reads only the options that it supports.

    Attributes:
        noise: returns standard normal noise of x's shape.
        eta: the share of the noise that is drawn anew in each step, 0 to 1.
        clip_range: the bound on the magnitude of `denoised`, or None.
        order: the largest number of estimates, 1 to 3, that a step uses.
        corrector_order: the same for SA-Solver's corrector.
        solver_type: the form of a DPM-Solver or UniPC, by diffusers' names.
        lower_order_final: whether the order falls towards the last step.
        euler_at_final: whether the last step always has order 1.
        disable_corrector: the indices of steps that UniPC does not correct.
        timestep_scaling: how fast LCM's boundary condition leaves the start.
    """

    noise: Noise
    eta: float = 0.0
    clip_range: float | None = None
    order: int = 2
    corrector_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    disable_corrector: tuple[int, ...] = ()
    timestep_scaling: float = 10.0


def log_ratio(sigma: float, target: float) -> float:
    """The distance from `sigma` down to `target` in -log σ; infinite if `target` is 0."""
    return math.log(sigma / target) if target else math.inf
