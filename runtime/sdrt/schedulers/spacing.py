"""Which noise levels a run visits: a function per family of diffusers schedulers, as each rounds its way.

Names of the spacings are those of Lin et al. 2023 (arXiv:2305.08891, table 2) and Karras et al. 2022.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sdrt.errors import RequestError
from sdrt.schedulers.config import Settings
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan

__all__ = ["dpm_plan", "interpolated_plan", "multistep_plan", "whole_plan"]

FloatArray = npt.NDArray[np.float64]
_RHO = 7.0


def interpolated_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """Euler's: timesteps may fall between trained ones, σ is interpolated."""
    timesteps = _timesteps(settings, n).astype(np.float32)
    sigmas = schedule.sigma_at(timesteps.astype(np.float64))
    if settings.use_karras_sigmas:
        low = sigmas[-1] if settings.sigma_min is None else settings.sigma_min
        high = sigmas[0] if settings.sigma_max is None else settings.sigma_max
        sigmas = _karras(low, high, n)
        timesteps = schedule.timestep_at(sigmas).astype(np.float32)
    levels = _levels(sigmas, _final_sigma(settings, schedule))
    preserving = settings.timestep_spacing == "leading"
    return Plan(
        timesteps=tuple(timesteps.tolist()),
        sigmas=levels,
        transfers=tuple(pairwise(levels)),
        init_scale=float(np.hypot(max(levels), 1)) if preserving else max(levels),
        variance_preserving=False,
        noise_schedule=schedule,
    )


def dpm_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """DPM-Solver's: whole timesteps out of n + 1, the last left out; trained levels may be cut off."""
    if settings.use_karras_sigmas:
        sigmas = _karras(schedule.sigmas[0], schedule.sigmas[-1], n)
        timesteps = schedule.timestep_at(sigmas)
        # diffusers rounds, but truncates where the schedule is the cosine one.
        timesteps = (
            np.trunc(timesteps) if settings.beta_schedule == "squaredcos_cap_v2" else timesteps.round()
        )
    else:
        timesteps = _dpm_timesteps(settings, schedule, n)
        sigmas = schedule.sigma_at(timesteps)
    levels = _levels(sigmas, _final_sigma(settings, schedule))
    _refuse_repeated(levels[:-1], settings.timestep_spacing)
    return _preserving_plan(schedule, timesteps, levels, tuple(pairwise(levels)))


def whole_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """DDIM's: whole timesteps, each stepping T // n down wherever the next one is."""
    timesteps = _whole_timesteps(settings, n)
    sigmas = [_sigma(settings, schedule, t) for t in timesteps]
    stride = settings.num_train_timesteps // n
    targets = [_sigma(settings, schedule, t - stride) for t in timesteps]
    transfers = tuple(zip(sigmas, targets, strict=True))
    return _preserving_plan(schedule, np.array(timesteps), (*sigmas, targets[-1]), transfers)


def multistep_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """PNDM's: DDIM's with the second timestep twice, where the first step is made again from its start."""
    first, *rest = _whole_timesteps(settings, n)
    timesteps = [first, *rest[:1], *rest]
    stride = settings.num_train_timesteps // n
    ends = [(t, t - stride) for t in timesteps]
    if rest:
        ends[1] = (rest[0] + stride, rest[0])
    transfers = tuple((_sigma(settings, schedule, a), _sigma(settings, schedule, b)) for a, b in ends)
    sigmas = tuple(_sigma(settings, schedule, t) for t in timesteps)
    return _preserving_plan(schedule, np.array(timesteps), (*sigmas, transfers[-1][1]), transfers)


def _preserving_plan(
    schedule: NoiseSchedule,
    timesteps: npt.NDArray[np.integer] | FloatArray,
    sigmas: tuple[float, ...],
    transfers: tuple[tuple[float, float], ...],
) -> Plan:
    return Plan(
        timesteps=tuple(float(t) for t in timesteps),
        sigmas=sigmas,
        transfers=transfers,
        init_scale=float(np.hypot(sigmas[0], 1)),
        variance_preserving=True,
        noise_schedule=schedule,
    )


def _timesteps(settings: Settings, n: int) -> FloatArray:
    """Timesteps [n], descending, unrounded where linspace puts them between whole ones."""
    trained = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, trained - 1, n, dtype=np.float64)[::-1]
    if settings.timestep_spacing == "leading":
        multiples = np.arange(n, dtype=np.float64)[::-1]
        return multiples * (trained // n) + settings.steps_offset
    # For some n (61 is the first) rounding gives `arange` one element too many, a timestep of -1.
    return np.asarray(np.arange(trained, 0, -trained / n)[:n].round() - 1, dtype=np.float64)


def _whole_timesteps(settings: Settings, n: int) -> list[int]:
    timesteps = _timesteps(settings, n).round().astype(int).tolist()
    if timesteps[0] >= settings.num_train_timesteps:
        raise RequestError(
            f"num_inference_steps is {n}, whose first timestep {timesteps[0]} is past the last trained one "
            f"({settings.num_train_timesteps - 1}) with steps_offset {settings.steps_offset}: use fewer steps"
        )
    return [int(t) for t in timesteps]


def _dpm_timesteps(settings: Settings, schedule: NoiseSchedule, n: int) -> FloatArray:
    # λ = -log σ; trained levels with λ below the bound are left out.
    lambdas = -schedule.log_sigmas[::-1]
    last = len(schedule) - int(np.searchsorted(lambdas, np.float32(settings.lambda_min_clipped)))
    if settings.timestep_spacing == "linspace":
        return np.asarray(np.linspace(0, last - 1, n + 1).round()[:0:-1], dtype=np.float64)
    if settings.timestep_spacing == "leading":
        multiples = np.arange(n, 0, -1, dtype=np.float64)
        return multiples * (last // (n + 1)) + settings.steps_offset
    steps = np.arange(last, 0, -settings.num_train_timesteps / n)[:n]
    return np.asarray(steps.round() - 1, dtype=np.float64)


def _karras(low: float, high: float, n: int) -> FloatArray:
    """σ from high to low, evenly spaced in σ^(1/ρ) (Karras et al. 2022, arXiv:2206.00364, equation 5)."""
    top, bottom = float(high) ** (1 / _RHO), float(low) ** (1 / _RHO)
    return np.asarray((top + np.linspace(0, 1, n) * (bottom - top)) ** _RHO, dtype=np.float64)


def _levels(sigmas: FloatArray, final: float) -> tuple[float, ...]:
    # diffusers keeps the visited levels in float32.
    return tuple(np.append(sigmas, final).astype(np.float32).tolist())


def _final_sigma(settings: Settings, schedule: NoiseSchedule) -> float:
    return float(schedule.sigmas[0]) if settings.final_sigmas_type == "sigma_min" else 0.0


def _sigma(settings: Settings, schedule: NoiseSchedule, timestep: int) -> float:
    """σ of a whole timestep; below 0 is the end, where ᾱ is 1 or that of timestep 0."""
    if timestep < 0:
        return 0.0 if settings.set_alpha_to_one else float(schedule.sigmas[0])
    return float(schedule.sigmas[timestep])


def _refuse_repeated(sigmas: tuple[float, ...], spacing: str) -> None:
    if len(set(sigmas)) != len(sigmas):
        raise RequestError(
            f"num_inference_steps is {len(sigmas)}, which with {spacing} spacing visits a timestep twice and "
            "DPM++ cannot step over nothing: use fewer steps, or the karras spacing"
        )
