"""The plans of samplers that A1111 and k-diffusion give levels of their own: Restart, DPM fast and DPM adaptive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sdrt.errors import RequestError
from sdrt.schedulers.discrete_schedule import DiscreteNoiseSchedule
from sdrt.schedulers.levels import levels_between
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers.dpm_steps import lowered, stage_levels
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.spacing import interpolated_grid

__all__ = ["adaptive_plan", "fast_plan", "restart_plan", "skip_adaptive", "skip_fast", "skip_restart"]

FloatArray = npt.NDArray[np.float64]
Pairs = Sequence[tuple[float, float]]
# A1111's restarts: from the level nearest to 0.1 back to that nearest to 2, in runs of 20 steps and more.
_RESTART_FROM, _RESTART_TO, _FEWEST_WITH_RESTART = 0.1, 2.0, 20
_LONG_RUN = 36


def restart_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """Restart: Heun's evaluations, which go back to a higher level once or twice. `n` includes the repeated steps."""
    levels = interpolated_grid(settings, schedule, n).sigmas
    return _heun(_with_restarts(levels, schedule), schedule, n)


def skip_restart(settings: Settings, plan: Plan, steps: int, evaluations: int) -> Plan:
    """The same for a run from an image. It restarts as often as a whole run with the same number of steps."""
    schedule = plan.noise_schedule
    assert isinstance(schedule, DiscreteNoiseSchedule)
    levels = interpolated_grid(settings, schedule, plan.num_steps).sigmas[steps:]
    rest = _heun(_with_restarts(levels, schedule), schedule, plan.num_steps - steps)
    return replace(rest, skipped=evaluations)


def _with_restarts(levels: FloatArray, schedule: NoiseSchedule) -> Pairs:
    """The steps between `levels`, the last of which is 0, and those after each restart."""
    n = len(levels) - 1
    if n < _FEWEST_WITH_RESTART:
        return list(pairwise(levels.tolist()))
    length, times = (n // 4, 2) if n >= _LONG_RUN else (9, 1)
    low, high = float(levels[-2]), float(levels[0])
    levels = np.append(_karras(low, high, n - length * times, schedule), levels[-1])
    bottom = int(np.abs(levels - _RESTART_FROM).argmin())
    top = int(np.abs(levels - _RESTART_TO).argmin())
    steps = list(pairwise(levels.tolist()))
    if not 0 <= top < bottom < n:
        return steps
    again = _karras(float(levels[bottom]), float(levels[top]), length + 1, schedule).tolist()
    return [*steps[:bottom], *list(pairwise(again)) * times, *steps[bottom:]]


def _karras(low: float, high: float, n: int, schedule: NoiseSchedule) -> FloatArray:
    # In float32, like all visited levels, and with ends that equal the given levels exactly.
    levels = levels_between("karras", low, high, n, schedule).astype(np.float32).astype(np.float64)
    levels[0], levels[-1] = high, low
    return levels


def _heun(pairs: Pairs, schedule: NoiseSchedule, n: int) -> Plan:
    levels, transfers, numbers = list[float](), list[tuple[float, float]](), list[int]()
    for number, (sigma, target) in enumerate(pairs):
        visited = [sigma, target] if target else [sigma]
        levels += visited
        transfers += [(sigma, target)] * len(visited)
        numbers += [number] * len(visited)
    return _exploding(schedule, n, [*levels, pairs[-1][1]], transfers, numbers)


def fast_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DPM fast: `n` evaluations between the ends of the trained range, in steps of three."""
    low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
    return _fast(schedule, low, high, n)


def skip_fast(settings: Settings, plan: Plan, steps: int, evaluations: int) -> Plan:
    """The same from a level of A1111's Uniform on."""
    low, high = _remaining(plan, steps)
    rest = _fast(plan.noise_schedule, low, high, plan.num_steps - steps)
    return replace(rest, skipped=evaluations)


def _fast(schedule: NoiseSchedule, low: float, high: float, n: int) -> Plan:
    count, left = n // 3 + 1, n % 3
    orders = [3] * (count - 1) + [left] if left else [3] * (count - 2) + [2, 1]
    between = np.exp(np.linspace(np.log(high), np.log(low), count + 1)).tolist()
    between[0], between[-1] = high, low
    levels, transfers, numbers = list[float](), list[tuple[float, float]](), list[int]()
    for (sigma, target), order in zip(pairwise(between), orders, strict=True):
        down, _ = lowered(sigma, target, low, 1.0)
        stages = stage_levels(sigma, down, order)
        numbers += [len(levels)] * order
        levels += stages
        transfers += [(sigma, end) for end in (*stages[1:], target)]
    return _exploding(schedule, n, [*levels, low], transfers, numbers)


def adaptive_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DPM adaptive: the ends of the trained range. `n` only says when a prompt changes."""
    low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
    return replace(_exploding(schedule, n, [high, low], [], []), adaptive=True)


def skip_adaptive(settings: Settings, plan: Plan, steps: int, evaluations: int) -> Plan:
    """The same from a level of A1111's Uniform on."""
    low, high = _remaining(plan, steps)
    rest = _exploding(plan.noise_schedule, plan.num_steps - steps, [high, low], [], [])
    return replace(rest, adaptive=True)


def _remaining(plan: Plan, steps: int) -> tuple[float, float]:
    """The lowest trained level, and that of Uniform after some steps."""
    schedule = plan.noise_schedule
    assert isinstance(schedule, DiscreteNoiseSchedule)
    low = float(schedule.sigmas[0])
    high = float(levels_between("normal", low, low, plan.num_steps, schedule)[steps])
    if high <= low * (1 + 1e-6):
        raise RequestError.advised(
            f"a run of {plan.num_steps - steps} of {plan.num_steps} steps begins at the noise level where this "
            "scheduler ends",
            "use more steps, a larger strength, or another scheduler",
            argument="num_inference_steps",
        )
    return low, high


def _exploding(
    schedule: NoiseSchedule,
    n: int,
    levels: Sequence[float],
    transfers: Pairs,
    numbers: Sequence[int],
) -> Plan:
    visited = [] if not transfers else levels[:-1]
    return Plan(
        timesteps=tuple(schedule.timestep_at(visited).tolist()) if visited else (),
        sigmas=tuple(levels),
        transfers=tuple(transfers),
        init_scale=levels[0],
        variance_preserving=False,
        num_steps=n,
        noise_schedule=schedule,
        numbers=tuple(numbers),
    )
