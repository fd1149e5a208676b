"""diffusers' schedulers in float64, as the reference for sdrt's. Needs torch and diffusers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch

from sdrt.schedulers import SAMPLERS, Plan
from tools.goldens.scheduler_runs import SEED, SHAPE, Case, model


class _Float64Torch:
    """A stand-in for torch in modules that round latents to float32, which disables the rounding."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class _BrownianPath:
    """Noise of one Brownian path, drawn as in sdrt, because torchsde's own seeds cannot be matched."""

    def __init__(self) -> None:
        self.generator = torch.Generator("cpu").manual_seed(SEED)
        torch.randn(SHAPE, generator=self.generator)
        self._middle: torch.Tensor | None = None
        self._length = 0.0

    def __call__(self, sigma: Any, target: Any) -> torch.Tensor:
        length = float(sigma) - float(target)
        drawn = torch.randn(SHAPE, generator=self.generator).double()
        if self._middle is None:
            self._middle, self._length = drawn, length
            return drawn
        shared = self._length / length
        noise: torch.Tensor = shared**0.5 * self._middle + (1 - shared) ** 0.5 * drawn
        self._middle = None
        return noise


class _Ipndm:
    """diffusers' iPNDM with other noise levels. It takes v, and latents that preserve variance."""

    def __init__(self, scheduler: Any, plan: Plan) -> None:
        self.inner, self._plan = scheduler, plan
        scheduler.set_timesteps(plan.num_evaluations)
        sigmas = torch.tensor(plan.sigmas, dtype=torch.float64)
        self._scale = torch.sqrt(1 + sigmas**2)
        scheduler.alphas, scheduler.betas = 1 / self._scale, sigmas / self._scale
        scheduler.timesteps = self.timesteps = torch.tensor(plan.timesteps)
        self.init_noise_sigma = plan.init_scale
        self._index = 0

    def scale_model_input(self, latents: torch.Tensor, _timestep: Any) -> torch.Tensor:
        return latents / self._scale[self._index]

    def step(self, output: torch.Tensor, timestep: Any, latents: torch.Tensor) -> Any:
        c_skip, c_out, _ = self._plan.noise_schedule.scalings(self._plan.sigmas[self._index])
        denoised = c_skip * latents + c_out * output
        alpha, sigma = self.inner.alphas[self._index], self.inner.betas[self._index]
        preserving = latents / self._scale[self._index]
        v = (alpha * preserving - denoised) / sigma
        self.inner.set_begin_index(0)
        stepped = self.inner.step(v, timestep, preserving)
        self._index += 1
        stepped.prev_sample *= self._scale[self._index]
        return stepped


@contextmanager
def _correct_roots() -> Iterator[None]:
    """Make torch's square roots in float32 round as IEEE 754 says.

    On some processors (one of AMD's) they are off by a unit in the last place. Zero terminal SNR multiplies this error
    by 50 in 1 - alpha, so levels would differ by 3e-6 from those of other machines.
    """
    inexact = torch.Tensor.sqrt

    def root(tensor: torch.Tensor) -> torch.Tensor:
        return inexact(tensor.double()).to(tensor.dtype)

    torch.Tensor.sqrt = root  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.Tensor.sqrt = inexact  # type: ignore[method-assign]


def reference_scheduler(case: Case, num_inference_steps: int, plan: Plan) -> Any:
    """diffusers' scheduler for a case, with its own noise levels, widened to float64."""
    cls = getattr(diffusers, SAMPLERS[case.sampler].class_name)
    with _correct_roots():
        scheduler = cls.from_config(case.diffusers_config)
    scheduler.set_timesteps(num_inference_steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(
            0
        )  # Karras timesteps repeat, and diffusers would start at the second of two.
    if case.grid_is_ours:
        # diffusers' class has no such spacing: compare its arithmetic on sdrt's levels.
        _set_grid(scheduler, plan)
    if case.sampler == "dpmpp_sde":
        scheduler.noise_sampler = _BrownianPath()
    if case.sampler == "ipndm":
        scheduler = _Ipndm(scheduler, plan)
    if case.sampler == "dpmpp_3m_sde":
        _mend_third_order(scheduler)
    if case.sampler == "dpm2_a":
        _exact_ancestral_levels(scheduler)
    for name in (
        "sigmas",
        "sigmas_interpol",
        "sigmas_up",
        "sigmas_down",
        "alphas_cumprod",
        "final_alpha_cumprod",
    ):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def _mend_third_order(scheduler: Any) -> None:
    """Correct the SDE's square term: diffusers has ½∫ - 1 instead of ½∫, an error that small steps do not reduce."""
    update = scheduler.multistep_dpm_solver_third_order_update

    def mended(outputs: list[torch.Tensor], **about: Any) -> torch.Tensor:
        *levels, target = scheduler.sigmas[scheduler.step_index - 2 : scheduler.step_index + 2].double()
        h, near, far = (
            float(torch.log(a / b))
            for a, b in zip((levels[2], levels[1], levels[0]), (target, *levels[:0:-1]), strict=True)
        )
        one, other = (outputs[-1] - outputs[-2]) * (h / near), (outputs[-2] - outputs[-3]) * (h / far)
        square = (one - other) / ((near + far) / h)
        updated: torch.Tensor = update(outputs, **about) + square / torch.sqrt(1 + target**2)
        return updated

    scheduler.multistep_dpm_solver_third_order_update = mended


def _exact_ancestral_levels(scheduler: Any) -> None:
    """Compute levels in float64. diffusers rounds them to float32, then divides small differences by a small level."""
    levels = scheduler.sigmas.double()
    following = torch.cat([levels[1::2].repeat_interleave(2)[1:], torch.zeros(2)])[: len(levels)]
    scheduler.sigmas_interpol = following
    scheduler.sigmas_down = torch.where(levels > 0, following**2 / levels, 0.0)
    scheduler.sigmas_up = (following**2 - scheduler.sigmas_down**2) ** 0.5


def _set_grid(scheduler: Any, plan: Plan) -> None:
    scheduler.timesteps = torch.tensor(plan.timesteps)
    scheduler.sigmas = torch.tensor(plan.sigmas, dtype=torch.float64)


def run_reference(case: Case, num_inference_steps: int) -> tuple[tuple[float, ...], npt.NDArray[np.float64]]:
    """diffusers' timesteps, and its latents after each step [steps, *SHAPE], from SEED's noise."""
    scheduler = reference_scheduler(case, num_inference_steps, case.scheduler.plan(num_inference_steps))
    generator = torch.Generator("cpu").manual_seed(SEED)
    # In flow matching the first latents are the noise, and the model sees them as they are.
    scale = getattr(scheduler, "init_noise_sigma", 1.0)
    see = getattr(scheduler, "scale_model_input", lambda latents, _: latents)
    latents = torch.randn(SHAPE, generator=generator).double() * scale
    trajectory = []
    with _in_float64(scheduler, generator):
        for timestep in scheduler.timesteps:
            output = torch.from_numpy(model(see(latents, timestep).numpy(), float(timestep)))
            options = {"eta": case.eta} if case.sampler in ("ddim", "tcd") else {}
            latents = scheduler.step(output, timestep, latents, **options).prev_sample
            trajectory.append(latents.numpy())
    return tuple(float(t) for t in scheduler.timesteps), np.stack(trajectory)


@contextmanager
def _in_float64(scheduler: Any, generator: torch.Generator) -> Iterator[None]:
    module: Any = sys.modules[type(getattr(scheduler, "inner", scheduler)).__module__]
    kept = {name: vars(module)[name] for name in ("torch", "randn_tensor") if name in vars(module)}
    # Noise is still drawn in float32, as in a float32 pipeline.
    noise = {"randn_tensor": lambda shape, **_: torch.randn(shape, generator=generator).double()}
    vars(module).update({name: {"torch": _Float64Torch(), **noise}[name] for name in kept})
    try:
        yield
    finally:
        vars(module).update(kept)
