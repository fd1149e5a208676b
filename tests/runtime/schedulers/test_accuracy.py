"""How fast samplers converge, and what variance and noise their steps have."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from sdrt.schedulers import Scheduler, Step, resolve_scheduler
from tests.runtime.schedulers.exact_runs import (
    CONFIG,
    Latents,
    no_noise,
    noise_of,
    scheduler_of,
    smooth,
    unit_gaussian,
)


def steps_of(scheduler: Scheduler, n: int, x: float = 1.0) -> list[Step]:
    plan = scheduler.plan(n)
    start = np.full((1, 1, 1, 1), x * math.hypot(1, plan.sigmas[0]), dtype=np.float32)
    return list(scheduler.sample(unit_gaussian, start, plan, noise=no_noise))


def error_before_last(scheduler: Scheduler, n: int) -> float:
    """Relative error at the last level above zero."""
    step = steps_of(scheduler, n)[-2]
    return abs(float(step.x.item()) / math.hypot(1, step.sigma) - 1)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("euler", 1),
        ("edm_euler", 1),
        ("heun", 2),
        ("dpm2", 2),
        # Its first steps are of a lower order, and with them what a whole run shows; so with all that need a past.
        ("lms", 3),
        ("ipndm", 2),
        ("dpmpp_2m", 2),
        ("dpmpp_3m", 2),
        ("edm_dpmpp_2m", 2),
        ("dpmpp_2s", 2),
        ("dpmpp_3s", 3),
        ("deis", 2),
        ("unipc", 3),
    ],
)
def test_order_of_convergence(name: str, order: int) -> None:
    scheduler = scheduler_of(name, "exponential")
    measured = math.log2(error_before_last(scheduler, 40) / error_before_last(scheduler, 80))
    assert measured > order - 0.35


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("pndm", 2)])
def test_order_of_convergence_on_whole_timesteps(name: str, order: int) -> None:
    scheduler = resolve_scheduler(name, CONFIG, "trailing")
    measured = math.log2(error_before_last(scheduler, 25) / error_before_last(scheduler, 50))
    assert measured > order - 0.35


@pytest.mark.parametrize(
    ("name", "spacing", "off"),
    [
        # Of first order in every step's drift too, and 12 % off with 25 steps.
        ("euler_a", "karras", 0.04),
        ("ddpm", "trailing", 0.04),
        ("dpm2_a", "karras", 0.01),
        ("dpmpp_sde", "karras", 0.01),
        ("dpmpp_2m_sde", "karras", 0.01),
        ("dpmpp_3m_sde", "karras", 0.01),
        ("sa_solver", "karras", 0.01),
    ],
)
def test_fresh_noise_keeps_the_variance_of_the_level(name: str, spacing: str, off: float) -> None:
    scheduler = resolve_scheduler(name, CONFIG, spacing)
    plan, random = scheduler.plan(100), np.random.default_rng(0)

    def noise() -> Latents:
        return random.standard_normal((1, 4, 128, 128)).astype(np.float32)

    x = noise() * math.hypot(1, plan.sigmas[0])
    steps = list(scheduler.sample(unit_gaussian, x, plan, noise=noise))
    step = steps[-1 - scheduler.sampler.evaluations]
    assert float(step.x.std()) == pytest.approx(math.hypot(1, step.sigma), rel=off)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("euler_a", 1),
        ("dpm2_a", 2),
        ("dpmpp_sde", 2),
        ("dpmpp_2m_sde", 2),
        ("dpmpp_3m_sde", 2),
        ("sa_solver", 2),
    ],
)
@pytest.mark.parametrize("spacing", ["exponential", "karras"])
def test_order_at_which_the_variance_converges(name: str, order: int, spacing: str) -> None:
    """Without chance: each draw is a place of its own, and variances of independent draws add up."""
    coarse, fine = (_error_of_variance(resolve_scheduler(name, CONFIG, spacing), n) for n in (80, 160))
    assert order - 0.2 < math.log2(coarse / fine) < order + 0.35


def _error_of_variance(scheduler: Scheduler, n: int) -> float:
    plan = scheduler.plan(n)
    places = np.eye(2 + 2 * plan.num_evaluations, dtype=np.float32)[:, np.newaxis, np.newaxis, np.newaxis, :]
    draws = iter(places)
    x = next(draws) * math.hypot(1, plan.sigmas[0])
    steps = list(scheduler.sample(unit_gaussian, x, plan, noise=lambda: next(draws)))
    step = steps[-1 - scheduler.sampler.evaluations]
    return abs(float(np.square(step.x, dtype=np.float64).sum()) / (1 + step.sigma**2) - 1)


def test_both_parts_of_a_dpmpp_sde_step_see_one_brownian_path() -> None:
    """W(σ) - W(target) holds W(σ) - W(middle): their correlation is √((σ - middle)/(σ - target))."""
    scheduler = resolve_scheduler("dpmpp_sde", CONFIG, "exponential")
    plan, random = scheduler.plan(2), np.random.default_rng(0)
    (sigma, middle), (_, target), _ = plan.transfers

    def noise() -> Latents:
        return random.standard_normal((1, 4, 128, 128)).astype(np.float32)

    def nothing(x: Latents, _sigma: float) -> Latents:
        return np.zeros_like(x)

    first, second, _ = (
        step.x.copy() for step in scheduler.sample(nothing, np.zeros_like(noise()), plan, noise=noise)
    )
    correlation = float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    assert correlation == pytest.approx(math.sqrt((sigma - middle) / (sigma - target)), abs=0.01)


def karras(low: float, high: float, n: int) -> npt.NDArray[np.float64]:
    return (high ** (1 / 7) + np.linspace(0, 1, n) * (low ** (1 / 7) - high ** (1 / 7))) ** 7


def restarted(levels: list[float]) -> list[tuple[float, float]]:
    """The steps of A1111's `restart_sampler`, for a run along these levels."""
    n = len(levels) - 1
    restarts = {}
    if n >= 20:
        length, times = (n // 4, 2) if n >= 36 else (9, 1)
        levels = [*karras(levels[-2], levels[0], n - length * times), 0.0]
        restarts = {int(np.argmin(np.abs(np.array(levels) - 0.1))): (length + 1, times)}
    steps = []
    for index, step in enumerate(itertools.pairwise(levels)):
        steps.append(step)
        if index + 1 in restarts:
            length, times = restarts[index + 1]
            top = int(np.argmin(np.abs(np.array(levels) - 2)))
            # With the very same ends: a rounding would count as a restart.
            again = [levels[top], *karras(levels[index + 1], levels[top], length)[1:-1], levels[index + 1]]
            steps += list(itertools.pairwise(again)) * times
    return steps


@pytest.mark.parametrize("n", [2, 19, 20, 35, 36, 60])
@pytest.mark.parametrize("skip", [0, 1])
def test_restart_is_heun_with_noise_between(n: int, skip: int) -> None:
    scheduler = resolve_scheduler("Restart Karras", CONFIG | {"timestep_spacing": "linspace"})
    plan, noise = scheduler.plan(n, skip=skip), noise_of()
    x = noise() * np.float32(plan.sigmas[0])
    *_, last = scheduler.sample(smooth, x, plan, noise=noise)
    again = noise_of()
    state = again() * plan.sigmas[0]
    grid = resolve_scheduler("Euler Karras", CONFIG | {"timestep_spacing": "linspace"}).plan(n)
    steps = restarted(list(grid.sigmas[skip:]))
    assert len(steps) == n - skip == plan.num_steps
    level = steps[0][0]
    for sigma, target in steps:
        if sigma > level:
            state = state + math.sqrt(sigma**2 - level**2) * again()
        slope = (state - smooth(state, sigma)) / sigma
        end = state + slope * (target - sigma)
        if target:
            end = state + (slope + (end - smooth(end, target)) / target) / 2 * (target - sigma)
        state, level = end, target
    np.testing.assert_allclose(last.x, state, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_cfgpp_renoises_with_the_noise_of_no_prompt(eta: float) -> None:
    """arXiv:2406.08070, algorithm 2, in its own variance-preserving form."""
    scheduler = resolve_scheduler("DDIM CFG++", CONFIG)
    plan, noise = scheduler.plan(10), noise_of()
    seen: list[Latents] = []

    def denoise(x: Latents, sigma: float) -> Latents:
        seen.append(np.asarray(smooth(x, sigma) * 0.5, dtype=np.float32))
        return smooth(x, sigma)

    x = noise() * np.float32(plan.init_scale)
    *_, last = scheduler.sample(denoise, x, plan, noise=noise, eta=eta, unconditional=lambda: seen[-1])
    again, state = noise_of(), x / math.hypot(1, plan.sigmas[0])
    again()
    for sigma, target in plan.transfers:
        here, there = 1 / (1 + sigma**2), 1 / (1 + target**2)
        guided = smooth(state / math.sqrt(here), sigma)
        without = (state - math.sqrt(here) * guided * 0.5) / math.sqrt(1 - here)
        fresh = eta * math.sqrt((1 - there) / (1 - here) * (1 - here / there))
        state = math.sqrt(there) * guided + math.sqrt(max(1 - there - fresh**2, 0)) * without
        if eta:
            state = state + fresh * again()
    np.testing.assert_allclose(last.x * plan.latents_scale(last.sigma), state, rtol=2e-5, atol=2e-5)
