"""What all samplers share: their types, and what they are told besides the denoiser and the noise levels.

State x is float32, and as the plan's noise schedule has it at each level: x = clean + σ·noise where the variance
explodes. Rules that add noise or go by log σ hold there only. Those along slopes dx/dσ = (x - denoised)/σ, such as
Euler and Heun, hold for x = (1 - σ)·clean + σ·noise too. Coefficients are Python floats. A sampler yields
(x, denoised) after each transfer and goes on from that very array, so a caller may write into it.
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
    """What a sampler may need besides the denoiser; each reads what concerns it.

    Attributes:
        noise: gives standard normal noise of x's shape.
        eta: share of the noise that is drawn afresh at each step, 0 to 1.
        clip_range: bound on the magnitude of `denoised`, or None.
        order: most of the estimates, 1 to 3, that a step is made from.
        corrector_order: the same of SA-Solver's corrector.
        solver_type: which of its forms a DPM-Solver or UniPC takes, by diffusers' names.
        lower_order_final: whether the order falls towards the last step.
        euler_at_final: whether the last step is of order 1 however many there are.
        disable_corrector: indices of steps that UniPC does not correct.
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
    """How far apart two noise levels are in -log σ; infinite down to 0."""
    return math.log(sigma / target) if target else math.inf
