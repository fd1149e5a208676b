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

__all__ = ["deis", "ipndm", "lms", "pndm"]

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
_RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
_RUNGE_KUTTA_STAGES, _RUNGE_KUTTA_EVALUATIONS = 4, 12


def pndm(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """PLMS, or all of PNDM (Liu et al. 2022, arXiv:2202.09778, algorithm 2): three Runge–Kutta steps first."""
    return (_plms if options.skip_prk_steps else _with_runge_kutta)(denoise, x, plan)


def _with_runge_kutta(denoise: Denoise, x: Latents, plan: Plan) -> States:
    """As in diffusers, raw model outputs are mixed, and a step's second evaluation may be off the level it aims at."""
    start, stages, history = x, list[Latents](), list[Latents]()
    for index, (source, target) in enumerate(plan.transfers):
        newest = _output(denoise(x, plan.sigmas[index]), x, plan, plan.sigmas[index])
        stage = index % _RUNGE_KUTTA_STAGES if index < _RUNGE_KUTTA_EVALUATIONS else None
        if stage in (0, None):
            start, stages, history = x, [], [newest, *history[: _MOST - 1]]
        stages.append(newest)
        output = newest if stage is not None else _mixed(_ADAMS_BASHFORTH[_MOST - 1], history)
        if stage == _RUNGE_KUTTA_STAGES - 1:
            output = _mixed(_RUNGE_KUTTA, stages)
        x, denoised = _transferred(start, output, plan, source, target)
        yield x, denoised


def _plms(denoise: Denoise, x: Latents, plan: Plan) -> States:
    """The linear multistep half of PNDM (Liu et al. 2022, arXiv:2202.09778, equations 9 and 12).

    The second timestep is evaluated twice: first to make the first step again with the mean of both ends.
    As in diffusers, raw model outputs are mixed, which for v prediction is not the same as mixing ε.
    """
    start = x
    history: list[Latents] = []
    for index, (source, target) in enumerate(plan.transfers):
        newest = _output(denoise(x, plan.sigmas[index]), x, plan, plan.sigmas[index])
        history = [newest, *history[: _MOST - 1]]
        output = _mixed(_PLMS_WEIGHTS[min(index, _MOST)], history)
        if index == 1:
            x = start * relabelling(plan.sigmas[0], source)
            del history[0]
        x, denoised = _transferred(x, output, plan, source, target)
        yield x, denoised


def _output(denoised: Latents, x: Latents, plan: Plan, sigma: float) -> Latents:
    """The raw output of the model."""
    c_skip, c_out, _ = plan.noise_schedule.scalings(sigma)
    return np.asarray((denoised - c_skip * x) / c_out, dtype=np.float32)


def _transferred(
    x: Latents, output: Latents, plan: Plan, source: float, target: float
) -> tuple[Latents, Latents]:
    """The state x of the level `source` at `target`, and the image that a raw output means at `source`."""
    c_skip, c_out, _ = plan.noise_schedule.scalings(source)
    denoised = c_skip * x + c_out * output
    return denoised + (target / source) * (x - denoised), denoised


def ipndm(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """iPNDM (Zhang & Chen 2022, arXiv:2204.13902, appendix H.2): Adams–Bashforth from the first step on."""
    orders = [min(index + 1, _MOST) for index in range(plan.num_planned)]
    return _linear_multistep(denoise, x, plan, options, orders, _by_step)


def lms(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """LMS, k-diffusion's `sample_lms`: a polynomial in σ through up to four slopes."""
    orders = [min(index + 1, _MOST) for index in range(plan.num_planned)]
    return _linear_multistep(denoise, x, plan, options, orders, _by_sigma)


def deis(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DEIS in log ρ (Zhang & Chen 2022, arXiv:2204.13902, section 3.3): a polynomial in log σ."""
    return _linear_multistep(denoise, x, plan, options, multistep_orders(plan, options), _by_log_sigma)


def _linear_multistep(
    denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions, orders: Sequence[int], weigh: Weigh
) -> States:
    visited: list[float] = []
    slopes: list[Latents] = []
    for (sigma, target), order in zip(plan.transfers, orders, strict=True):
        denoised = options.limit(denoise(x, sigma))
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
