"""The noise levels between which a run steps: a function for each family of diffusers schedulers, which round in
different ways.

The spacings of timesteps are those of Lin et al. 2023 (arXiv:2305.08891, table 2). :mod:`~sdrt.schedulers.levels` has
the spacings of noise levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdrt.common.messages import refused
from sdrt.errors import RequestError
from sdrt.schedulers.discrete_schedule import DiscreteNoiseSchedule
from sdrt.schedulers.flow_schedule import FlowNoiseSchedule
from sdrt.schedulers.levels import final_level, levels_between, placed_timesteps
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.settings import Settings

__all__ = [
    "Grid",
    "consistency_timesteps",
    "continuous_grid",
    "dpm_grid",
    "flow_grid",
    "interpolated_grid",
    "sigma_of",
    "whole_timesteps",
]

FloatArray = npt.NDArray[np.float64]
_EDM_LOWEST, _EDM_HIGHEST = 0.002, 80.0


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The levels between which a run steps: `sigmas` [n + 1] with the final one, and `timesteps` [n] of the others."""

    timesteps: FloatArray
    sigmas: FloatArray


def interpolated_grid(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Grid:
    """Euler's family: timesteps may lie between trained ones, and σ is interpolated there."""
    timesteps = _timesteps(settings, n).astype(np.float32)
    sigmas = schedule.sigma_at(timesteps.astype(np.float64))
    if settings.sigmas is not None:
        levels = np.array(settings.sigmas)
        return Grid(
            timesteps=schedule.timestep_at(levels[:-1]), sigmas=_ended(levels[:-1], float(levels[-1]))
        )
    if settings.levels is not None:
        low = sigmas[-1] if settings.sigma_min is None else settings.sigma_min
        high = sigmas[0] if settings.sigma_max is None else settings.sigma_max
        sigmas = levels_between(settings.levels, float(low), float(high), n, schedule)
        timesteps = schedule.timestep_at(sigmas).astype(np.float32)
    lowest = float(schedule.sigmas[0])
    final = final_level(settings.levels, lowest, lowest if settings.final_sigmas_type == "sigma_min" else 0.0)
    return Grid(timesteps=timesteps.astype(np.float64), sigmas=_ended(sigmas, final))


def dpm_grid(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Grid:
    """DPM-Solver's family: whole timesteps, n + 1 without the last. `lambda_min_clipped` leaves out trained levels."""
    if settings.sigmas is not None:
        levels = np.array(settings.sigmas)
        timesteps = schedule.timestep_at(levels[:-1])
        return Grid(timesteps=timesteps.round(), sigmas=_ended(levels[:-1], float(levels[-1])))
    if settings.levels is None:
        timesteps = _dpm_timesteps(settings, schedule, n)
        sigmas = schedule.sigma_at(timesteps)
    else:
        low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
        sigmas = levels_between(settings.levels, low, high, n, schedule)
        timesteps = placed_timesteps(settings.levels, settings.beta_schedule, schedule.timestep_at(sigmas))
    final = final_level(settings.levels, float(schedule.sigmas[0]), 0.0)
    if settings.final_sigmas_type == "sigma_min":
        final = float(schedule.sigmas[0])
    elif settings.final_sigmas_type == "last":
        final = float(schedule.sigmas[0] if settings.levels is None else sigmas[-1])
    grid = Grid(timesteps=timesteps, sigmas=_ended(sigmas, final))
    _refuse_repeated(grid, settings)
    return grid


def continuous_grid(settings: Settings, schedule: NoiseSchedule, n: int) -> Grid:
    """EDM: levels between the two ends that the config gives, and the timesteps of these levels."""
    if settings.sigmas is not None:
        return _chosen_grid(settings.sigmas, schedule)
    low = _EDM_LOWEST if settings.sigma_min is None else settings.sigma_min
    high = _EDM_HIGHEST if settings.sigma_max is None else settings.sigma_max
    sigmas = levels_between(settings.levels or "karras", low, high, n, schedule)
    final = low if settings.final_sigmas_type == "sigma_min" else 0.0
    sigmas = sigmas.astype(np.float32).astype(np.float64)
    return Grid(timesteps=schedule.timestep_at(sigmas), sigmas=_ended(sigmas, final))


def flow_grid(settings: Settings, schedule: FlowNoiseSchedule, n: int) -> Grid:
    """Flow matching: levels from 1 down to the lowest trained one, evenly spaced and then shifted."""
    if settings.sigmas is not None:
        return _chosen_grid(settings.sigmas, schedule)
    trained = schedule.num_train_timesteps
    # The ends are shifted already, so the lowest level is shifted twice, as in diffusers.
    low, high = schedule.shifted(np.array([1, trained], np.float32) / np.float32(trained)).tolist()
    sigmas = schedule.shifted(schedule.sigma_at(np.linspace(high * trained, low * trained, n)))
    if settings.levels is not None:
        sigmas = levels_between(settings.levels, float(sigmas[-1]), float(sigmas[0]), n, schedule)
    ended = _ended(sigmas, 0.0)
    timesteps = schedule.timestep_at(ended[:-1]).astype(np.float32)
    return Grid(timesteps=timesteps.astype(np.float64), sigmas=ended)


def _chosen_grid(sigmas: tuple[float, ...], schedule: NoiseSchedule) -> Grid:
    """The noise levels that a call chose; the last one is where the run ends."""
    ended = _ended(np.array(sigmas[:-1]), sigmas[-1])
    return Grid(timesteps=schedule.timestep_at(ended[:-1]), sigmas=ended)


def whole_timesteps(settings: Settings, n: int) -> list[int]:
    """DDIM's family: whole timesteps [n], descending."""
    timesteps = _timesteps(settings, n).round().astype(int).tolist()
    if timesteps[0] >= settings.num_train_timesteps:
        raise RequestError.advised(
            f"num_inference_steps is {n}, whose first timestep {timesteps[0]} is past the last trained one "
            f"({settings.num_train_timesteps - 1}) with steps_offset {settings.steps_offset}",
            "use fewer steps",
            argument="num_inference_steps",
        )
    return [int(t) for t in timesteps]


def consistency_timesteps(settings: Settings, n: int) -> list[int]:
    """LCM and TCD: n of the `original_inference_steps` that the model was distilled on, below `strength`."""
    if settings.timesteps is not None:
        return [int(t) for t in settings.timesteps]
    original = settings.original_inference_steps
    most = int(original * settings.strength)
    if n > most:
        weak = f", of which a strength of {settings.strength:g} leaves {most}" if most < original else ""
        raise refused(
            "num_inference_steps",
            f"is {n}, but the model was distilled on {original} (original_inference_steps){weak}",
            f"at most {most}" if most else f"a strength of at least {n / original:g}",
        )
    distilled = np.arange(most, 0, -1) * (settings.num_train_timesteps // original) - 1
    return [int(distilled[int(place)]) for place in np.floor(np.linspace(0, most, n, endpoint=False))]


def sigma_of(settings: Settings, schedule: NoiseSchedule, timestep: int) -> float:
    """σ of a whole timestep. A timestep below 0 is the end of a run: σ is 0 there, or that of timestep 0."""
    if timestep < 0:
        return 0.0 if settings.set_alpha_to_one else float(schedule.sigma_at(0))
    return float(schedule.sigma_at(timestep))


def _timesteps(settings: Settings, n: int) -> FloatArray:
    """Timesteps [n], descending. Those of linspace are not rounded."""
    if settings.timesteps is not None:
        return np.array(settings.timesteps, dtype=np.float64)
    trained = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, trained - 1, n, dtype=np.float64)[::-1]
    if settings.timestep_spacing == "sgm_uniform":
        return np.linspace(trained - 1, 0, n + 1, dtype=np.float64)[:-1]
    if settings.timestep_spacing == "leading":
        multiples = np.arange(n, dtype=np.float64)[::-1]
        return multiples * (trained // n) + settings.steps_offset
    # For some n (61 is the first) rounding gives `arange` one element too many, a timestep of -1.
    return np.asarray(np.arange(trained, 0, -trained / n)[:n].round() - 1, dtype=np.float64)


def _dpm_timesteps(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> FloatArray:
    if settings.timesteps is not None:
        return np.array(settings.timesteps, dtype=np.float64)
    # λ = -log σ; trained levels with λ below the bound are left out.
    lambdas = -schedule.log_sigmas[::-1]
    last = len(schedule) - int(np.searchsorted(lambdas, np.float32(settings.lambda_min_clipped)))
    if settings.timestep_spacing in ("linspace", "sgm_uniform"):
        return np.asarray(np.linspace(0, last - 1, n + 1).round()[:0:-1], dtype=np.float64)
    if settings.timestep_spacing == "leading":
        multiples = np.arange(n, 0, -1, dtype=np.float64)
        return multiples * (last // (n + 1)) + settings.steps_offset
    steps = np.arange(last, 0, -settings.num_train_timesteps / n)[:n]
    return np.asarray(steps.round() - 1, dtype=np.float64)


def _ended(sigmas: FloatArray, final: float) -> FloatArray:
    # diffusers keeps the visited levels in float32.
    return np.append(sigmas, final).astype(np.float32).astype(np.float64)


def _refuse_repeated(grid: Grid, settings: Settings) -> None:
    visited = grid.sigmas[:-1]
    if len(set(visited.tolist())) != len(visited):
        raise RequestError.advised(
            f"num_inference_steps is {len(visited)}: with {settings.levels or settings.timestep_spacing} spacing, so "
            "many steps visit a timestep twice, which this scheduler does not support",
            "use fewer steps, or the karras spacing",
            argument="num_inference_steps",
        )
