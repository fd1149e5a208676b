"""The noise levels at which each sampler evaluates the U-Net, and those to which it steps: a function for each rule.

:mod:`~sdrt.schedulers.spacing` gives the levels between which a run steps. A rule may also evaluate the U-Net at other
levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sdrt.common.messages import refused
from sdrt.schedulers.discrete_schedule import DiscreteNoiseSchedule
from sdrt.schedulers.edm_schedule import EdmNoiseSchedule
from sdrt.schedulers.flow_schedule import FlowNoiseSchedule
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.spacing import (
    Grid,
    consistency_timesteps,
    continuous_grid,
    dpm_grid,
    flow_grid,
    interpolated_grid,
    sigma_of,
    whole_timesteps,
)

__all__ = [
    "ancestral_middle_plan",
    "consistency_plan",
    "ddim_plan",
    "ddpm_plan",
    "dpm2_ancestral_plan",
    "dpm2_plan",
    "dpm_plan",
    "dpm_sde_plan",
    "edm_plan",
    "euler_plan",
    "flow_euler_plan",
    "flow_heun_plan",
    "heun_plan",
    "pndm_plan",
    "skip_evaluations",
    "skip_plms",
]

_FEWEST_WITH_RUNGE_KUTTA = 4


@dataclass(frozen=True)
class _Evaluations:
    """The attributes of these names of a Plan."""

    timesteps: Sequence[float]
    sigmas: Sequence[float]
    transfers: Sequence[tuple[float, float]]


def euler_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """Euler: one evaluation at each level."""
    return _exploding(settings, schedule, n, _one_stage(interpolated_grid(settings, schedule, n)))


def heun_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """Heun: a second evaluation at the end of each step but the last."""
    grid = interpolated_grid(settings, schedule, n)
    return _exploding(settings, schedule, n, _two_stage(grid, schedule, _end))


def dpm2_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DPM2: a second evaluation in the middle, in log σ, of each step but the last."""
    grid = _with_whole_karras(settings, interpolated_grid(settings, schedule, n))
    return _exploding(settings, schedule, n, _two_stage(grid, schedule, _geometric_middle))


def dpm_sde_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DPM++ SDE: the evaluations of DPM2. No spacing rounds the timesteps."""
    grid = interpolated_grid(settings, schedule, n)
    return _exploding(settings, schedule, n, _two_stage(grid, schedule, _geometric_middle))


def dpm2_ancestral_plan(
    settings: Settings, schedule: DiscreteNoiseSchedule, n: int, *, whole_karras: bool = True
) -> Plan:
    """DPM2 a: a step from σₛ goes down to σₜ²/σₛ before noise is added, so its middle in log σ is σₜ."""
    grid = interpolated_grid(settings, schedule, n)
    if whole_karras:
        grid = _with_whole_karras(settings, grid)
    # A little above σₜ, because the next step starts at σₜ and its timestep may be a rounded one.
    stages = _two_stage(grid, schedule, lambda _, target: target * (1 + 1e-12))
    return _exploding(settings, schedule, n, stages)


def ancestral_middle_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DPM++ 2S a: the evaluations of DPM2 a. No spacing rounds the timesteps."""
    return dpm2_ancestral_plan(settings, schedule, n, whole_karras=False)


def dpm_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DPM-Solver's family: one evaluation at each level."""
    return _preserving(schedule, n, _one_stage(dpm_grid(settings, schedule, n)))


def ddim_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DDIM: each whole timestep steps down by T // n, or to the next one if a call chose the timesteps."""
    timesteps = whole_timesteps(settings, n)
    sigmas = [sigma_of(settings, schedule, t) for t in timesteps]
    stride = settings.num_train_timesteps // n
    following = [t - stride for t in timesteps] if settings.timesteps is None else [*timesteps[1:], -1]
    targets = [sigma_of(settings, schedule, t) for t in following]
    transfers = list(zip(sigmas, targets, strict=True))
    return _preserving(schedule, n, _Evaluations(timesteps, [*sigmas, targets[-1]], transfers))


def ddpm_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """DDPM: each whole timestep steps to the next, and the last one to a clean image."""
    timesteps = whole_timesteps(settings, n)
    levels = [*schedule.sigma_at(timesteps).tolist(), 0.0]
    return _preserving(schedule, n, _Evaluations(timesteps, levels, list(pairwise(levels))))


def pndm_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """PLMS: the timesteps of DDIM, with the second one twice, because the first step is repeated from its start.

    Without `skip_prk_steps`, the first three steps are of Runge and Kutta, with four evaluations each.
    """
    first, *rest = whole_timesteps(settings, n)
    if not settings.skip_prk_steps:
        return _runge_kutta_plan(settings, schedule, [first, *rest], settings.num_train_timesteps // n)
    timesteps = [first, *rest[:1], *rest]
    stride = settings.num_train_timesteps // n
    ends = [(t, t - stride) for t in timesteps]
    if rest:
        ends[1] = (rest[0] + stride, rest[0])
    transfers = [(sigma_of(settings, schedule, a), sigma_of(settings, schedule, b)) for a, b in ends]
    sigmas = [sigma_of(settings, schedule, t) for t in timesteps]
    return _preserving(schedule, n, _Evaluations(timesteps, [*sigmas, transfers[-1][1]], transfers))


def _runge_kutta_plan(
    settings: Settings, schedule: NoiseSchedule, timesteps: Sequence[int], stride: int
) -> Plan:
    n = len(timesteps)
    if n < _FEWEST_WITH_RUNGE_KUTTA:
        raise refused(
            "num_inference_steps",
            f"leaves {n}, and PNDM without skip_prk_steps begins with {_FEWEST_WITH_RUNGE_KUTTA - 1} others",
            f"at least {_FEWEST_WITH_RUNGE_KUTTA}",
        )
    visited, ends = list[int](), list[tuple[int, int]]()
    for start, end in pairwise(timesteps[:_FEWEST_WITH_RUNGE_KUTTA]):
        middle = end + stride // 2
        visited += [start, middle, middle, end]
        ends += [(start, start - stride // 2), (start, middle), (start, middle - stride // 2), (start, end)]
    rest = timesteps[_FEWEST_WITH_RUNGE_KUTTA - 1 :]
    visited += rest
    ends += [(t, t - stride) for t in rest]
    transfers = [(sigma_of(settings, schedule, a), sigma_of(settings, schedule, b)) for a, b in ends]
    sigmas = [sigma_of(settings, schedule, t) for t in visited]
    plan = _preserving(schedule, n, _Evaluations(visited, [*sigmas, transfers[-1][1]], transfers))
    return replace(plan, numbers=tuple([0] * 4 + [1] * 4 + [2] * 4 + list(range(3, n))))


def consistency_plan(settings: Settings, schedule: DiscreteNoiseSchedule, n: int) -> Plan:
    """LCM and TCD: the last step goes to a clean image, or to timestep 0 if `final_sigmas_type` is "sigma_min"."""
    timesteps = consistency_timesteps(settings, n)
    final = float(schedule.sigma_at(0)) if settings.final_sigmas_type == "sigma_min" else 0.0
    levels = [*schedule.sigma_at(timesteps).tolist(), final]
    return _preserving(schedule, n, _Evaluations(timesteps, levels, list(pairwise(levels))))


def edm_plan(settings: Settings, schedule: EdmNoiseSchedule, n: int) -> Plan:
    """EDM: one evaluation at each level."""
    grid = continuous_grid(settings, schedule, n)
    return _plan(schedule, n, _one_stage(grid), init_scale=math.hypot(grid.sigmas[0], 1))


def flow_euler_plan(settings: Settings, schedule: FlowNoiseSchedule, n: int) -> Plan:
    """Flow matching with Euler: one evaluation at each level. The first state is the noise itself."""
    return _plan(schedule, n, _one_stage(flow_grid(settings, schedule, n)), init_scale=1.0)


def flow_heun_plan(settings: Settings, schedule: FlowNoiseSchedule, n: int) -> Plan:
    """Flow matching with Heun: a second evaluation at the end of each step but the last."""
    return _plan(schedule, n, _two_stage(flow_grid(settings, schedule, n), schedule, _end), init_scale=1.0)


def skip_evaluations(_settings: Settings, plan: Plan, steps: int, evaluations: int) -> Plan:
    """The plan without its first `steps`, which take this number of `evaluations`."""
    return replace(
        plan,
        timesteps=plan.timesteps[evaluations:],
        sigmas=plan.sigmas[evaluations:],
        transfers=plan.transfers[evaluations:],
        num_steps=plan.num_steps - steps,
        skipped=evaluations,
    )


def skip_plms(settings: Settings, plan: Plan, steps: int, evaluations: int) -> Plan:
    """The same for PLMS: as in diffusers, the second remaining evaluation repeats the first remaining step."""
    if not settings.skip_prk_steps:
        timesteps, stride = (
            whole_timesteps(settings, plan.num_steps),
            settings.num_train_timesteps // plan.num_steps,
        )
        again = _runge_kutta_plan(settings, plan.noise_schedule, timesteps[steps:], stride)
        return replace(again, skipped=evaluations)
    rest = skip_evaluations(settings, plan, steps, evaluations)
    stride = settings.num_train_timesteps // plan.num_steps
    ends = [(int(t), int(t) - stride) for t in rest.timesteps]
    if len(ends) > 1:
        second = int(rest.timesteps[1])
        ends[1] = (second + stride, second)
    schedule = plan.noise_schedule
    transfers = [(sigma_of(settings, schedule, a), sigma_of(settings, schedule, b)) for a, b in ends]
    return replace(rest, transfers=tuple(transfers), sigmas=(*rest.sigmas[:-1], transfers[-1][1]))


def _one_stage(grid: Grid) -> _Evaluations:
    levels = grid.sigmas.tolist()
    return _Evaluations(grid.timesteps.tolist(), levels, list(pairwise(levels)))


def _two_stage(grid: Grid, schedule: NoiseSchedule, middle: Callable[[float, float], float]) -> _Evaluations:
    """Two evaluations a step: at its start, and at `middle` of its two levels. A step to a clean image has one."""
    starts = grid.timesteps.tolist()
    timesteps, levels, transfers = list[float](), list[float](), list[tuple[float, float]]()
    for index, (sigma, target) in enumerate(pairwise(grid.sigmas.tolist())):
        timesteps.append(starts[index])
        levels.append(sigma)
        if target:
            between = middle(sigma, target)
            at_end = between == target and index + 1 < len(starts)
            timesteps.append(starts[index + 1] if at_end else float(schedule.timestep_at(between)))
            levels.append(between)
            transfers.append((sigma, between))
        transfers.append((sigma, target))
    return _Evaluations(timesteps, [*levels, float(grid.sigmas[-1])], transfers)


def _end(_sigma: float, target: float) -> float:
    return target


def _geometric_middle(sigma: float, target: float) -> float:
    return math.sqrt(sigma * target)


def _with_whole_karras(settings: Settings, grid: Grid) -> Grid:
    """The grid with the timesteps of Karras spacing rounded, as diffusers rounds them for DPM2."""
    return replace(grid, timesteps=grid.timesteps.round()) if settings.levels == "karras" else grid


def _exploding(settings: Settings, schedule: NoiseSchedule, n: int, evaluations: _Evaluations) -> Plan:
    # diffusers' first noise has the variance 1 + σ² in leading spacing, and σ² in the others.
    highest = max(evaluations.sigmas)
    leading = settings.timestep_spacing == "leading"
    return _plan(schedule, n, evaluations, init_scale=math.hypot(highest, 1) if leading else highest)


def _preserving(schedule: NoiseSchedule, n: int, evaluations: _Evaluations) -> Plan:
    init_scale = math.hypot(evaluations.sigmas[0], 1)
    return _plan(schedule, n, evaluations, init_scale=init_scale, variance_preserving=True)


def _plan(
    schedule: NoiseSchedule,
    n: int,
    evaluations: _Evaluations,
    *,
    init_scale: float,
    variance_preserving: bool = False,
) -> Plan:
    return Plan(
        timesteps=tuple(float(t) for t in evaluations.timesteps),
        sigmas=tuple(evaluations.sigmas),
        transfers=tuple(evaluations.transfers),
        init_scale=init_scale,
        variance_preserving=variance_preserving,
        num_steps=n,
        noise_schedule=schedule,
    )
