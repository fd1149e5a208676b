"""diffusers' schedulers run in float64: what ours are measured against. Needs torch and diffusers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
from scheduler_runs import SEED, SHAPE, Case, model

from sdrt.schedulers import SAMPLERS, Plan


class _Float64Torch:
    """torch to a module that rounds latents to float32 on purpose, with the rounding taken out."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def reference_scheduler(case: Case, num_inference_steps: int, plan: Plan) -> Any:
    """diffusers' scheduler for a case, its levels as it made them, widened to float64."""
    cls = getattr(diffusers, SAMPLERS[case.sampler].class_name)
    scheduler = cls.from_config(case.diffusers_config)
    scheduler.set_timesteps(num_inference_steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # Karras timesteps repeat, and diffusers starts at the second of equals.
    if case.sampler == "euler_a" and case.spacing == "karras":
        # diffusers' class has no such spacing; its arithmetic is the oracle, its grid ours.
        scheduler.sigmas = torch.tensor(plan.sigmas)
        scheduler.timesteps = torch.tensor(plan.timesteps)
    for name in ("sigmas", "alphas_cumprod", "final_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def run_reference(case: Case, num_inference_steps: int) -> tuple[tuple[float, ...], npt.NDArray[np.float64]]:
    """diffusers' timesteps, and its latents after each step [steps, *SHAPE], from SEED's noise."""
    scheduler = reference_scheduler(case, num_inference_steps, case.scheduler.plan(num_inference_steps))
    generator = torch.Generator("cpu").manual_seed(SEED)
    latents = torch.randn(SHAPE, generator=generator).double() * scheduler.init_noise_sigma
    trajectory = []
    with _in_float64(scheduler, generator):
        for timestep in scheduler.timesteps:
            seen = scheduler.scale_model_input(latents, timestep)
            output = torch.from_numpy(model(seen.numpy(), float(timestep)))
            options = {"eta": case.eta} if case.sampler == "ddim" else {}
            latents = scheduler.step(output, timestep, latents, **options).prev_sample
            trajectory.append(latents.numpy())
    return tuple(float(t) for t in scheduler.timesteps), np.stack(trajectory)


@contextmanager
def _in_float64(scheduler: Any, generator: torch.Generator) -> Iterator[None]:
    module: Any = sys.modules[type(scheduler).__module__]
    kept = {name: vars(module)[name] for name in ("torch", "randn_tensor") if name in vars(module)}
    # The noise stays the float32 draw that a float32 pipeline makes.
    noise = {"randn_tensor": lambda shape, **_: torch.randn(shape, generator=generator).double()}
    vars(module).update({name: {"torch": _Float64Torch(), **noise}[name] for name in kept})
    try:
        yield
    finally:
        vars(module).update(kept)
