"""Samplers that use the slopes of several steps: x moves by ∫ ε dσ, with ε a polynomial through past estimates.

They differ in the variable of the polynomial: the step's number (PLMS, iPNDM), σ (LMS) or log σ (DEIS).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from sdrt.schedulers.plan import Plan, relabelling
from sdrt.schedulers.samplers.base import Denoise, Latents, SamplerOptions, States, log_ratio
from sdrt.schedulers.samplers.orders import multistep_orders

__all__ = ["deis", "ipndm", "lms", "plms"]

Weigh = Callable[[Sequence[float], float, float], Sequence[float]]

# Adams–Bashforth of orders 1 to 4, newest first.
_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
# PLMS evaluates its second timestep twice; the entry at 1 is the second half of an improved Euler step.
_PLMS_WEIGHTS = (_ADAMS_BASHFORTH[0], (1 / 2, 1 / 2), *_ADAMS_BASHFORTH[1:])
_MOST = 4


def plms(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """PLMS, the linear multistep half of PNDM (Liu et al. 2022, arXiv:2202.09778, equations 9 and 12).

    The second timestep is evaluated twice: first to make the first step again with the mean of both ends.
    As in diffusers, raw model outputs are mixed, which for v prediction is not the same as mixing ε.
    """
    start = x
    history: list[Latents] = []
    for index, (source, target) in enumerate(plan.transfers):
        c_skip, c_out, _ = plan.noise_schedule.scalings(plan.sigmas[index])
        denoised = denoise(x, plan.sigmas[index])
        newest = np.asarray((denoised - c_skip * x) / c_out, dtype=np.float32)
        history = [newest, *history[: _MOST - 1]]
        output = _mixed(_PLMS_WEIGHTS[min(index, _MOST)], history)
        if index == 1:
            x = start * relabelling(plan.sigmas[0], source)
            del history[0]
        c_skip, c_out, _ = plan.noise_schedule.scalings(source)
        denoised = c_skip * x + c_out * output
        x = denoised + (target / source) * (x - denoised)
        yield x, denoised


def ipndm(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """iPNDM (Zhang & Chen 2022, arXiv:2204.13902, appendix H.2): Adams–Bashforth from the first step on."""
    orders = [min(index + 1, _MOST) for index in range(plan.num_evaluations)]
    return _linear_multistep(denoise, x, plan, orders, _by_step)


def lms(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """LMS, k-diffusion's `sample_lms`: a polynomial in σ through up to four slopes."""
    orders = [min(index + 1, _MOST) for index in range(plan.num_evaluations)]
    return _linear_multistep(denoise, x, plan, orders, _by_sigma)


def deis(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DEIS in log ρ (Zhang & Chen 2022, arXiv:2204.13902, section 3.3): a polynomial in log σ."""
    return _linear_multistep(denoise, x, plan, multistep_orders(plan, options), _by_log_sigma)


def _linear_multistep(
    denoise: Denoise, x: Latents, plan: Plan, orders: Sequence[int], weigh: Weigh
) -> States:
    visited: list[float] = []
    slopes: list[Latents] = []
    for (sigma, target), order in zip(plan.transfers, orders, strict=True):
        denoised = denoise(x, sigma)
        visited = [sigma, *visited[: _MOST - 1]]
        slopes = [(x - denoised) / np.float32(sigma), *slopes[: _MOST - 1]]
        # Weights sum to the step, which Euler takes along the newest slope; so written, nothing large cancels.
        x = denoised + target * slopes[0]
        for weight, slope in zip(weigh(visited[:order], sigma, target)[1:], slopes[1:], strict=False):
            x += weight * (slope - slopes[0])
        yield x, denoised


def _by_step(visited: Sequence[float], sigma: float, target: float) -> Sequence[float]:
    return [weight * (target - sigma) for weight in _ADAMS_BASHFORTH[len(visited) - 1]]


def _by_sigma(visited: Sequence[float], sigma: float, target: float) -> Sequence[float]:
    """∫ of Lagrange's polynomials from sigma to target; two nodes of Gauss–Legendre are exact for a cubic."""
    middle, half = (sigma + target) / 2, (target - sigma) / 2
    nodes = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
    return [half * sum(_lagrange(visited, index, node) for node in nodes) for index in range(len(visited))]


def _lagrange(nodes: Sequence[float], index: int, at: float) -> float:
    """1 at nodes[index], 0 at the others."""
    others = [node for other, node in enumerate(nodes) if other != index]
    return math.prod((at - node) / (nodes[index] - node) for node in others)


def _by_log_sigma(visited: Sequence[float], sigma: float, target: float) -> Sequence[float]:
    """∫ ℓ(log σ) dσ of Lagrange's polynomials ℓ, from the integrals of their powers of log σ."""
    if target == sigma:
        return [0.0] * len(visited)
    logs = [log_ratio(sigma, level) for level in visited]  # -log(σᵢ/σ), 0 for the newest
    moments = _moments(log_ratio(sigma, target), len(visited))
    columns = np.vander(np.array(logs), increasing=True).T
    return [-sigma * float(weight) for weight in np.linalg.solve(columns, moments)]


def _moments(h: float, count: int) -> list[float]:
    """∫₀ʰ sᵏ e⁻ˢ ds for k from 0."""
    moments = [-math.expm1(-h)]
    for power in range(1, count):
        edge = h**power * math.exp(-h) if h < math.inf else 0.0
        moments.append(power * moments[-1] - edge)
    return moments


def _mixed(weights: Sequence[float], outputs: Sequence[Latents]) -> Latents:
    mixed: Latents = outputs[0] * np.float32(weights[0])
    for weight, output in zip(weights[1:], outputs[1:], strict=False):
        mixed = mixed + weight * output
    return mixed
