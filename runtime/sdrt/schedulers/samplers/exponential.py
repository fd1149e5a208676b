"""Samplers that integrate the decay of the noise exactly, and the denoised image as a polynomial in λ = -log σ.

With τ² the share of fresh noise (0: the ODE, 1: the SDE), a = 1 + τ² and h the step in λ, for any D(λ)

    x(t) = (σₜ/σₛ)·e^(-τ²h)·x(s) + ∫₀ʰ a·e^(-a(h-u))·D(λₛ + u) du + σₜ·√(1 - e^(-2τ²h))·noise

(SA-Solver, Xue et al. 2023, arXiv:2309.05019, proposition 4.1, divided by αₜ). The samplers differ in the polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers.base import Denoise, Latents, SamplerOptions, States, log_ratio
from sdrt.schedulers.samplers.euler import ancestral_split
from sdrt.schedulers.samplers.orders import multistep_orders, singlestep_orders

__all__ = [
    "dpm_multistep",
    "dpm_singlestep",
    "dpmpp_2s_ancestral",
    "dpmpp_multistep",
    "dpmpp_sde",
    "dpmpp_singlestep",
    "sa_solver",
    "unipc",
]


@dataclass(frozen=True)
class _Estimate:
    """The denoised image at a noise level."""

    sigma: float
    denoised: Latents


def dpmpp_multistep(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095, algorithm 2) and, with η = 1, its SDE (its section 4.4).

    Order 3 is the authors' published code: half of the polynomial's square term, and so of second order.
    """
    return _multistep(denoise, x, plan, options, _ExponentialStep)


def dpm_multistep(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DPM-Solver (Lu et al. 2022, arXiv:2206.00927) with past estimates: a polynomial of ε instead of the image."""
    return _multistep(denoise, x, plan, options, _NoiseStep)


def _multistep(
    denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions, kind: type[_ExponentialStep]
) -> States:
    past: list[_Estimate] = []
    for (sigma, target), order in zip(plan.transfers, multistep_orders(plan, options), strict=True):
        denoised = options.limit(denoise(x, sigma))
        past = [_Estimate(sigma, kind.estimate(x, denoised, sigma)), *past[:2]]
        step = kind(sigma, target, options.eta)
        x = step.start(x, past[0].denoised)
        # With Karras levels and a final sigma_min, the last step has no length.
        if order > 1 and step.h:
            slope, curvature = _newton(past[:order], step.h)
            x += step.slope_weight(options.solver_type if order == 2 else "heun") * slope
            if curvature is not None:
                x += step.moment(2) / 2 * curvature
        if options.eta > 0:
            x += step.noise_level * options.noise()
        yield x, denoised


def dpmpp_singlestep(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DPM-Solver++(2S) and (3S) (arXiv:2211.01095, algorithm 1): steps in groups, each made from the group's start."""
    return _singlestep(denoise, x, plan, options, _ExponentialStep)


def dpm_singlestep(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """DPM-Solver-2 and -3 (arXiv:2206.00927, algorithms 1 and 2), with steps in groups as diffusers makes them."""
    return _singlestep(denoise, x, plan, options, _NoiseStep)


def _singlestep(
    denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions, kind: type[_ExponentialStep]
) -> States:
    start, group = x, list[_Estimate]()
    for (sigma, target), order in zip(plan.transfers, singlestep_orders(plan, options), strict=True):
        denoised = options.limit(denoise(x, sigma))
        if order == 1:
            start, group = x, []
        group = [*group, _Estimate(sigma, kind.estimate(x, denoised, sigma))]
        first = group[0]
        step = kind(first.sigma, target, options.eta)
        x = step.start(start, first.denoised)
        if order == 3 and options.solver_type == "heun":
            for weight, other in zip(step.polynomial_weights(first, group[1:]), group[1:], strict=True):
                x += weight * (other.denoised - first.denoised)
        elif order > 1:
            slope, _ = _newton([first, group[-1]], step.h)
            x += step.slope_weight(options.solver_type if order == 2 else "heun") * slope
        if options.eta > 0:
            x += step.noise_level * options.noise()
        yield x, denoised


def dpmpp_2s_ancestral(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """k-diffusion's `sample_dpmpp_2s_ancestral`: DPM-Solver++(2S) further down, and fresh noise back up.

    With η = 1 the middle, in λ, of a step further down is the level that the step ends at.
    """
    start = x
    for index, (sigma, target) in enumerate(plan.transfers):
        denoised = denoise(x, plan.sigmas[index])
        if index % 2 == 0:
            start = x
            x = (target / sigma) * x + (1 - target / sigma) * denoised
        else:
            down, up = ancestral_split(sigma, target, options.eta)
            x = (down / sigma) * start + (1 - down / sigma) * denoised
            x += up * options.noise()
        yield x, denoised


def dpmpp_sde(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """k-diffusion's `sample_dpmpp_sde`, DPM-Solver++ (1S) to the middle in λ and from there, both with fresh noise.

    Both parts of a step see one Brownian path, as W(σ) - W(middle) is a part of W(σ) - W(target).
    """
    start, to_middle = x, x
    for index, (sigma, target) in enumerate(plan.transfers):
        denoised = denoise(x, plan.sigmas[index])
        if index % 2 == 0:
            start = x
            noise = to_middle = options.noise() if target else x
        else:
            shared = (sigma - plan.sigmas[index]) / (sigma - target)
            noise = math.sqrt(shared) * to_middle + math.sqrt(1 - shared) * options.noise()
        down, up = ancestral_split(sigma, target, 1.0)
        x = (down / sigma) * start + (1 - down / sigma) * denoised
        if up:
            x += up * noise
        yield x, denoised


def unipc(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """UniPC in its data form (Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 6).

    Each new estimate first corrects the step that led to it, then extends the polynomial.
    """
    past: list[_Estimate] = []
    last, order = x, 1
    count = plan.num_planned
    for index, (sigma, target) in enumerate(plan.transfers):
        newest = _Estimate(sigma, options.limit(denoise(x, sigma)))
        if index and index - 1 not in options.disable_corrector:
            x = _unipc_step(last, past[:order], newest, sigma, options.solver_type)
        past = [newest, *past[:2]]
        order = min(index + 1, options.order)
        if options.lower_order_final:
            order = min(order, count - index)
        if target == 0:
            order = 1
        last = x
        x = _unipc_step(x, past[:order], None, target, options.solver_type)
        yield x, newest.denoised


def _unipc_step(
    x: Latents, past: Sequence[_Estimate], ahead: _Estimate | None, target: float, solver_type: str
) -> Latents:
    """From past[0] to target; `ahead` is the estimate there, which a corrector has."""
    first = past[0]
    step = _ExponentialStep(first.sigma, target, 0.0)
    others = [*past[1:], *([ahead] if ahead else [])]
    moved = step.start(x, first.denoised)
    if len(others) == 1:
        # The authors' simplification: half of B(h) for the one slope there is.
        slope, _ = _newton([first, others[0]], step.h)
        weight = -math.expm1(-step.h) if solver_type == "bh2" else step.h
        moved += weight / 2 * slope
        return moved
    for weight, other in zip(step.polynomial_weights(first, others), others, strict=True):
        moved = moved + weight * (other.denoised - first.denoised)
    return moved


def sa_solver(denoise: Denoise, x: Latents, plan: Plan, options: SamplerOptions) -> States:
    """SA-Solver in its data form (Xue et al. 2023, arXiv:2309.05019, algorithm 1), τ = 1 for timesteps 200 to 800.

    The corrector makes the step again with the same noise and the estimate at its end.
    """
    past: list[_Estimate] = []
    last, noise, tau, corrected = x, x, 0.0, 2
    count = plan.num_planned
    for index, (sigma, target) in enumerate(plan.transfers):
        newest = _Estimate(sigma, options.limit(denoise(x, sigma)))
        if index:
            x = _sa_step(last, [newest, *past][:corrected], past[0].sigma, sigma, tau, noise)
        past = [newest, *past[:2]]
        left = count - index if options.lower_order_final else count
        corrected = min(options.corrector_order, left + 1, index + 2)
        tau = 1.0 if 200 <= plan.timestep(sigma) <= 800 else 0.0
        last, noise = x, options.noise()
        order = min(options.order, left, index + 1)
        x = _sa_step(x, past[:order], sigma, target, tau, noise)
        yield x, newest.denoised


def _sa_step(
    x: Latents, nodes: Sequence[_Estimate], sigma: float, target: float, tau: float, noise: Latents
) -> Latents:
    """One step through estimates, newest first, the newest at sigma (a predictor) or at target (a corrector)."""
    step = _ExponentialStep(sigma, target, tau**2)
    first, *others = nodes
    moved = step.start(x, first.denoised)
    if len(others) == 1 and step.h:
        slope, _ = _newton(nodes, step.h)
        # The authors' change for few steps: the slope's term as if the noise did not decay within the step.
        ahead = first.sigma == target
        moved = moved + (step.rate * step.h / 2 - (step.moment(0) if ahead else 0.0)) * slope
    elif others:
        for weight, other in zip(step.polynomial_weights(first, others), others, strict=True):
            moved = moved + weight * (other.denoised - first.denoised)
    moved += np.float32(step.noise_level) * noise
    return moved


class _ExponentialStep:
    """A step with a polynomial of the denoised image.

    One step's coefficients: from sigma to target with the share `eta` of fresh noise, τ² above.
    """

    def __init__(self, sigma: float, target: float, eta: float) -> None:
        self._sigma, self._target, self._eta = sigma, target, eta
        self.h = log_ratio(sigma, target)
        self.rate = 1 + eta

    @staticmethod
    def estimate(_x: Latents, denoised: Latents, _sigma: float) -> Latents:
        """What the polynomial goes through."""
        return denoised

    def start(self, x: Latents, denoised: Latents) -> Latents:
        """The step with a constant denoised image."""
        decay = math.exp(-self.rate * self.h)
        moved: Latents = decay * x - math.expm1(-self.rate * self.h) * denoised
        return moved

    @property
    def noise_level(self) -> float:
        """How much fresh noise there is at the end."""
        return self._target * math.sqrt(-math.expm1(-2 * self._eta * self.h)) if self._target else 0.0

    def moment(self, power: int) -> float:
        """∫₀ʰ a·e^(-a(h-u))·(u/h)^power du."""
        if not self.h or self.h == math.inf:
            return 0.0 if not self.h else 1.0
        moment = -math.expm1(-self.rate * self.h)
        for k in range(1, power + 1):
            moment = 1 - k * moment / (self.rate * self.h)
        return moment

    def slope_weight(self, solver_type: str) -> float:
        """Of a slope per step: exact in diffusers' "heun", in "midpoint" as if all of the decay were at the middle."""
        return self.moment(0) / 2 if solver_type == "midpoint" else self.moment(1)

    def polynomial_weights(self, first: _Estimate, others: Sequence[_Estimate]) -> list[float]:
        """Of each other's difference to the first: the integral of the polynomial through all of them."""
        if not self.h:
            return [0.0] * len(others)
        places = np.array([log_ratio(self._sigma, node.sigma) / self.h for node in (first, *others)])
        columns = np.vander(places, increasing=True).T
        moments = [self.moment(power) for power in range(len(places))]
        return [float(weight) for weight in np.linalg.solve(columns, moments)[1:]]


class _NoiseStep(_ExponentialStep):
    """The same with a polynomial of ε: x(t) = x(s) - a·∫₀ʰ σₛ·e⁻ᵘ·ε(λₛ + u) du, and noise of √(σₛ² - σₜ²) if τ = 1."""

    @staticmethod
    def estimate(x: Latents, denoised: Latents, sigma: float) -> Latents:
        """ε."""
        slope: Latents = (x - denoised) / np.float32(sigma)
        return slope

    def start(self, x: Latents, denoised: Latents) -> Latents:
        """The step with a constant ε."""
        moved: Latents = x + self.moment(0) * denoised
        return moved

    @property
    def noise_level(self) -> float:
        """How much fresh noise there is at the end."""
        return math.sqrt(max(self._sigma**2 - self._target**2, 0.0))

    def moment(self, power: int) -> float:
        """-a·∫₀ʰ σₛ·e⁻ᵘ·(u/h)^power du."""
        moment = self._sigma - self._target
        for k in range(1, power + 1):
            moment = k * moment / self.h - self._target if self.h else 0.0
        return -self.rate * moment


def _newton(nodes: Sequence[_Estimate], h: float) -> tuple[Latents, Latents | None]:
    """Slope at the first node, per h, of the polynomial through two or three; and its square term, per h²."""

    def slope(one: _Estimate, other: _Estimate) -> Latents:
        return (one.denoised - other.denoised) * (h / log_ratio(other.sigma, one.sigma))

    first, second, *rest = nodes
    if not rest:
        return slope(first, second), None
    (third,) = rest
    near, far = slope(first, second), slope(second, third)
    apart = log_ratio(third.sigma, first.sigma) / h
    curvature = (near - far) / apart
    return near + curvature * (log_ratio(second.sigma, first.sigma) / h), curvature
