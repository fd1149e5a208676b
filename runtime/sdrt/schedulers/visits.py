"""From noise levels to a run: which of them a sampler evaluates the U-Net at, and between which each part steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from sdrt.schedulers.config import Settings
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.spacing import (
    consistency_timesteps,
    continuous_grid,
    dpm_grid,
    interpolated_grid,
    sigma_of,
    whole_timesteps,
)

__all__ = [
    "consistency_plan",
    "ddim_plan",
    "ddpm_plan",
    "dpm2_ancestral_plan",
    "dpm2_plan",
    "dpm_plan",
    "dpm_sde_plan",
    "edm_plan",
    "euler_plan",
    "heun_plan",
    "pndm_plan",
    "skip_evaluations",
    "skip_plms",
]

Transfers = Sequence[tuple[float, float]]


def euler_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """One evaluation at each level, those of Euler."""
    grid = interpolated_grid(settings, schedule, n)
    levels = grid.sigmas.tolist()
    return _exploding(settings, schedule, n, grid.timesteps.tolist(), levels, list(pairwise(levels)))


def heun_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """Another evaluation at each step's end, but for the last."""
    return _two_stage(settings, schedule, n, lambda _, target: target)


def dpm2_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """Another evaluation in the middle of each step but the last, in log σ."""
    return _two_stage(
        settings, schedule, n, lambda sigma, target: math.sqrt(sigma * target), whole_karras=True
    )


def dpm_sde_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """As `dpm2_plan`, at fractions of timesteps whatever the spacing."""
    return _two_stage(settings, schedule, n, lambda sigma, target: math.sqrt(sigma * target))


def dpm2_ancestral_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """The middle of a step that goes down to σₜ²/σₛ before noise is added: σₜ itself."""
    # A hair above, so that it is told apart from the next step's start, whose timestep may be a rounded one.
    return _two_stage(settings, schedule, n, lambda _, target: target * (1 + 1e-12), whole_karras=True)


def dpm_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """One evaluation at each level, those of DPM-Solver."""
    grid = dpm_grid(settings, schedule, n)
    levels = grid.sigmas.tolist()
    return _preserving(schedule, n, grid.timesteps.tolist(), levels, list(pairwise(levels)))


def ddim_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """Whole timesteps, each stepping T // n down wherever the next one is; to the next one where a call chose them."""
    timesteps = whole_timesteps(settings, n)
    sigmas = [sigma_of(settings, schedule, t) for t in timesteps]
    stride = settings.num_train_timesteps // n
    following = [t - stride for t in timesteps] if settings.timesteps is None else [*timesteps[1:], -1]
    targets = [sigma_of(settings, schedule, t) for t in following]
    return _preserving(
        schedule, n, timesteps, [*sigmas, targets[-1]], list(zip(sigmas, targets, strict=True))
    )


def ddpm_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """Whole timesteps, each stepping to the next; the last to a clean picture."""
    timesteps = whole_timesteps(settings, n)
    levels = [*(float(schedule.sigmas[t]) for t in timesteps), 0.0]
    return _preserving(schedule, n, timesteps, levels, list(pairwise(levels)))


def pndm_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """DDIM's with the second timestep twice, where the first step is made again from its start."""
    first, *rest = whole_timesteps(settings, n)
    timesteps = [first, *rest[:1], *rest]
    stride = settings.num_train_timesteps // n
    ends = [(t, t - stride) for t in timesteps]
    if rest:
        ends[1] = (rest[0] + stride, rest[0])
    transfers = [(sigma_of(settings, schedule, a), sigma_of(settings, schedule, b)) for a, b in ends]
    sigmas = [sigma_of(settings, schedule, t) for t in timesteps]
    return _preserving(schedule, n, timesteps, [*sigmas, transfers[-1][1]], transfers)


def consistency_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """LCM's and TCD's; the last step goes to a clean picture, or with `final_sigmas_type` "sigma_min" to timestep 0."""
    timesteps = consistency_timesteps(settings, n)
    final = float(schedule.sigmas[0]) if settings.final_sigmas_type == "sigma_min" else 0.0
    levels = [*(float(schedule.sigmas[t]) for t in timesteps), final]
    return _preserving(schedule, n, timesteps, levels, list(pairwise(levels)))


def edm_plan(settings: Settings, schedule: NoiseSchedule, n: int) -> Plan:
    """One evaluation at each level, those of EDM."""
    grid = continuous_grid(settings, schedule, n)
    levels = grid.sigmas.tolist()
    return Plan(
        timesteps=tuple(grid.timesteps.tolist()),
        sigmas=tuple(levels),
        transfers=tuple(pairwise(levels)),
        init_scale=math.hypot(levels[0], 1),
        variance_preserving=False,
        num_steps=n,
        noise_schedule=schedule,
    )


def skip_evaluations(_settings: Settings, plan: Plan, steps: int, evaluations: int) -> Plan:
    """The rest of a run after its first `steps`, of so many evaluations."""
    return replace(
        plan,
        timesteps=plan.timesteps[evaluations:],
        sigmas=plan.sigmas[evaluations:],
        transfers=plan.transfers[evaluations:],
        num_steps=plan.num_steps - steps,
        skipped=evaluations,
    )


def skip_plms(settings: Settings, plan: Plan, steps: int, evaluations: int) -> Plan:
    """The same of PLMS, where diffusers lets whatever evaluation comes second make the first step again."""
    rest = skip_evaluations(settings, plan, steps, evaluations)
    stride = settings.num_train_timesteps // plan.num_steps
    ends = [(int(t), int(t) - stride) for t in rest.timesteps]
    if len(ends) > 1:
        second = int(rest.timesteps[1])
        ends[1] = (second + stride, second)
    schedule = plan.noise_schedule
    transfers = [(sigma_of(settings, schedule, a), sigma_of(settings, schedule, b)) for a, b in ends]
    return replace(rest, transfers=tuple(transfers), sigmas=(*rest.sigmas[:-1], transfers[-1][1]))


def _two_stage(
    settings: Settings,
    schedule: NoiseSchedule,
    n: int,
    middle: Callable[[float, float], float],
    *,
    whole_karras: bool = False,
) -> Plan:
    """Two evaluations a step: at its start, and at `middle` of its ends; one in a step to a clean picture."""
    grid = interpolated_grid(settings, schedule, n)
    rounded = whole_karras and settings.levels == "karras"
    starts = (grid.timesteps.round() if rounded else grid.timesteps).tolist()
    timesteps, levels, transfers = list[float](), list[float](), list[tuple[float, float]]()
    for index, (sigma, target) in enumerate(pairwise(grid.sigmas.tolist())):
        timesteps.append(starts[index])
        levels.append(sigma)
        if target:
            between = middle(sigma, target)
            at_end = between == target
            timesteps.append(starts[index + 1] if at_end else float(schedule.timestep_at(between)))
            levels.append(between)
            transfers.append((sigma, between))
        transfers.append((sigma, target))
    return _exploding(settings, schedule, n, timesteps, [*levels, float(grid.sigmas[-1])], transfers)


def _exploding(
    settings: Settings,
    schedule: NoiseSchedule,
    n: int,
    timesteps: Sequence[float],
    sigmas: Sequence[float],
    transfers: Transfers,
) -> Plan:
    # diffusers' own first noise is of variance 1 + σ² where the spacing is the old leading one, and of σ² elsewhere.
    preserving = settings.timestep_spacing == "leading"
    return Plan(
        timesteps=tuple(float(t) for t in timesteps),
        sigmas=tuple(sigmas),
        transfers=tuple(transfers),
        init_scale=math.hypot(max(sigmas), 1) if preserving else max(sigmas),
        variance_preserving=False,
        num_steps=n,
        noise_schedule=schedule,
    )


def _preserving(
    schedule: NoiseSchedule, n: int, timesteps: Sequence[float], sigmas: Sequence[float], transfers: Transfers
) -> Plan:
    return Plan(
        timesteps=tuple(float(t) for t in timesteps),
        sigmas=tuple(sigmas),
        transfers=tuple(transfers),
        init_scale=math.hypot(sigmas[0], 1),
        variance_preserving=True,
        num_steps=n,
        noise_schedule=schedule,
    )
