"""What holds for samplers without any model or reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sdrt.errors import RequestError
from sdrt.schedulers import SAMPLERS, Scheduler, Step, resolve_scheduler
from tests.runtime.schedulers.exact_runs import (
    CONFIG,
    Latents,
    no_noise,
    noise_of,
    scheduler_of,
    smooth,
    unit_gaussian,
)


def without_prompt(scheduler: Scheduler) -> dict[str, Any]:
    """The option that a sampler with CFG++ needs: the estimate without the prompt, here nothing."""
    needed = scheduler.sampler.needs_unconditional
    return {"unconditional": lambda: np.zeros((1, 1, 1, 1), dtype=np.float32)} if needed else {}


PLANNED = [name for name, row in SAMPLERS.items() if not row.chooses_steps]


@pytest.mark.parametrize("name", PLANNED)
def test_one_step_is_yielded_per_planned_evaluation(name: str) -> None:
    scheduler = scheduler_of(name)
    plan = scheduler.plan(6)
    seen: list[float] = []

    def denoise(x: Latents, sigma: float) -> Latents:
        seen.append(plan.timestep(sigma))
        return unit_gaussian(x, sigma)

    x = np.ones((1, 4, 2, 2), dtype=np.float32) * plan.init_scale
    options = without_prompt(scheduler)
    steps = list(scheduler.sample(denoise, x, plan, noise=lambda: np.zeros_like(x), **options))
    assert tuple(seen) == plan.timesteps == tuple(step.timestep for step in steps)
    assert [step.index for step in steps] == list(range(plan.num_evaluations))
    assert [step.sigma for step in steps] == list(plan.sigmas[1:])
    assert [step.last for step in steps] == [False] * (plan.num_evaluations - 1) + [True]
    assert all(step.x.dtype == step.denoised.dtype == np.float32 for step in steps)
    np.testing.assert_array_equal(x, plan.init_scale * np.ones_like(x))


def test_pndm_evaluates_its_second_timestep_twice() -> None:
    plan = resolve_scheduler("pndm", CONFIG).plan(5)
    assert plan.timesteps == (801, 601, 601, 401, 201, 1)


@pytest.mark.parametrize("name", PLANNED)
def test_writing_into_a_step_changes_the_rest_of_the_run(name: str) -> None:
    scheduler = scheduler_of(name)
    plan = scheduler.plan(6)
    x = np.ones((1, 1, 1, 1), dtype=np.float32) * plan.init_scale

    def final(written: float) -> float:
        options = without_prompt(scheduler)
        for step in scheduler.sample(unit_gaussian, x, plan, noise=lambda: np.zeros_like(x), **options):
            # DPM fast's fourth evaluation is the first of two, so what is written there only bends the step.
            if step.index == (4 if name == "dpm_fast" else 3):
                step.x[...] += written
        return float(step.x.item())

    assert final(1.0) > final(0.0) + 0.05
    assert final(-1.0) < final(0.0) - 0.05


@pytest.mark.parametrize(
    ("name", "eta", "draws"), [("euler_a", 0.0, 6), ("ddim", 0.5, 6), ("ddim", 0.0, 0), ("euler", 1.0, 0)]
)
def test_stochastic_samplers_draw_once_per_step(name: str, eta: float, draws: int) -> None:
    scheduler = scheduler_of(name)
    assert scheduler.stochastic(eta) == (draws > 0)
    plan, drawn = scheduler.plan(6), []

    def noise() -> Latents:
        drawn.append(1)
        return np.ones((1, 1, 1, 1), dtype=np.float32)

    x = np.ones((1, 1, 1, 1), dtype=np.float32) * plan.init_scale
    assert len(list(scheduler.sample(unit_gaussian, x, plan, noise=noise, eta=eta))) == 6
    assert len(drawn) == draws


@pytest.mark.parametrize(
    ("name", "spacing", "init", "latents"),
    [
        ("euler", "trailing", "sigma", "x"),
        ("euler", "leading", "hypot", "x"),
        ("euler_a", "linspace", "sigma", "x"),
        ("ddim", "trailing", "hypot", "preserving"),
        ("pndm", "leading", "hypot", "preserving"),
        ("dpmpp_2m", "karras", "hypot", "preserving"),
    ],
)
def test_scales_of_the_first_noise_and_of_latents(name: str, spacing: str, init: str, latents: str) -> None:
    plan = resolve_scheduler(name, CONFIG, spacing).plan(10)
    top = plan.sigmas[0]
    assert plan.init_scale == pytest.approx(top if init == "sigma" else math.hypot(1, top), rel=1e-12)
    assert plan.latents_scale(2.0) == pytest.approx(1.0 if latents == "x" else 1 / math.sqrt(5), rel=1e-12)


def test_scalings_recover_the_clean_latents_from_every_prediction_type() -> None:
    clean, noise, sigma = 0.7, -1.3, 2.5
    x, c = clean + sigma * noise, math.hypot(1, sigma)
    outputs = {"epsilon": noise, "v_prediction": (noise - sigma * clean) / c, "sample": clean}
    for prediction_type, output in outputs.items():
        schedule = resolve_scheduler("euler", {**CONFIG, "prediction_type": prediction_type}).noise_schedule
        c_skip, c_out, c_in = schedule.scalings(sigma)
        assert c_skip * x + c_out * output == pytest.approx(clean)
        assert c_in == pytest.approx(1 / c)


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_a_count_of_steps_that_the_model_lacks_is_refused(n: int) -> None:
    with pytest.raises(RequestError, match="expected 1 to 1000"):
        resolve_scheduler("euler", CONFIG).plan(n)


@pytest.mark.parametrize(("name", "spacing"), [("ddim", "leading"), ("dpmpp_2m", "linspace")])
def test_a_count_of_steps_that_the_spacing_cannot_place_is_refused(name: str, spacing: str) -> None:
    with pytest.raises(RequestError, match="use fewer steps"):
        resolve_scheduler(name, CONFIG, spacing).plan(1000)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_its_range_is_refused(eta: float) -> None:
    scheduler = resolve_scheduler("ddim", CONFIG)
    with pytest.raises(RequestError, match="expected a number from 0 to 1"):
        scheduler.sample(unit_gaussian, np.ones(1, np.float32), scheduler.plan(2), noise=no_noise, eta=eta)


def test_cfgpp_without_guidance_is_refused() -> None:
    scheduler = resolve_scheduler("ddim_cfgpp", CONFIG)
    with pytest.raises(RequestError, match="'ddim_cfgpp' needs guidance: use a guidance_scale above 1"):
        scheduler.sample(unit_gaussian, np.ones(1, np.float32), scheduler.plan(2), noise=no_noise)


def adaptive_steps(denoise: Any, *, n: int = 20, skip: int = 0) -> list[Step]:
    scheduler = resolve_scheduler("DPM adaptive", CONFIG)
    plan, noise = scheduler.plan(n, skip=skip), noise_of()
    assert (plan.adaptive, plan.num_evaluations) == (True, 0)
    x = noise() * np.float32(plan.sigmas[0])
    return list(scheduler.sample(denoise, x, plan, noise=noise))


def test_an_adaptive_run_says_where_it_is_and_ends_at_the_lowest_level() -> None:
    steps = adaptive_steps(smooth)
    assert len(steps) % 3 == 0
    assert [step.index for step in steps] == list(range(len(steps)))
    assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].sigma == pytest.approx(resolve_scheduler("euler", CONFIG).noise_schedule.sigma_at(0))
    numbers = [step.number for step in steps]
    assert numbers[0] == 0
    assert numbers == sorted(numbers)
    assert [step.following for step in steps[:-1]] == numbers[1:]
    # A prompt changes between two steps, never within one.
    assert all(step.number == step.following for step in steps if step.index % 3 != 2)
    # The number of steps asked for does not matter.
    np.testing.assert_array_equal(steps[-1].x, adaptive_steps(smooth, n=3)[-1].x)


def test_an_adaptive_run_takes_short_steps_where_the_estimates_bend() -> None:
    def bending(x: Latents, sigma: float) -> Latents:
        return np.asarray(smooth(x, sigma) + 3 * np.sin(9 * math.log(sigma)), dtype=np.float32)

    assert len(adaptive_steps(bending)) > 1.5 * len(adaptive_steps(smooth))
    assert len(adaptive_steps(smooth, skip=15)) < len(adaptive_steps(smooth))


def test_an_adaptive_run_does_not_go_on_for_ever() -> None:
    random = np.random.default_rng(0)

    def jumping(x: Latents, _sigma: float) -> Latents:
        return np.asarray(1e6 * random.standard_normal(x.shape), dtype=np.float32)

    with pytest.raises(RequestError, match="finds no step that is short enough at noise level"):
        adaptive_steps(jumping)


def test_what_is_written_into_an_adaptive_step_changes_the_rest() -> None:
    scheduler = resolve_scheduler("DPM adaptive", CONFIG)
    plan = scheduler.plan(10)

    def final(written: float) -> float:
        x = np.full((1, 1, 1, 1), plan.init_scale, dtype=np.float32)
        for step in scheduler.sample(unit_gaussian, x, plan, noise=lambda: np.zeros_like(x)):
            if step.index == 2:
                step.x[...] += written
        return float(step.x.item())

    assert final(1.0) > final(0.0) + 0.01
    assert final(-1.0) < final(0.0) - 0.01


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_no_run_begins_where_it_ends(name: str) -> None:
    scheduler = resolve_scheduler(name, CONFIG)
    assert scheduler.plan(20, skip=18).sigmas[0] > scheduler.plan(20, skip=18).sigmas[-1]
    with pytest.raises(RequestError, match="a run of 1 of 20 steps begins at the noise level where"):
        scheduler.plan(20, skip=19)


@pytest.mark.parametrize("n", range(1, 30))
def test_dpm_fast_evaluates_the_model_as_often_as_asked(n: int) -> None:
    scheduler = resolve_scheduler("DPM fast", CONFIG)
    assert scheduler.plan(n).num_evaluations == n
    numbers = [scheduler.plan(n).step_of(index) for index in range(n)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == n // 3 + 1


def test_pndm_begins_with_runge_and_kutta_unless_the_config_skips_them() -> None:
    scheduler = resolve_scheduler({**CONFIG, "skip_prk_steps": False, "steps_offset": 0}, {})
    plan = scheduler.plan(10)
    assert plan.timesteps[:12] == (900, 850, 850, 800, 800, 750, 750, 700, 700, 650, 650, 600)
    assert plan.timesteps[12:] == (600, 500, 400, 300, 200, 100, 0)
    assert [plan.step_of(index) for index in range(19)] == [0] * 4 + [1] * 4 + [2] * 4 + [*range(3, 10)]
    assert scheduler.plan(10, skip=4).timesteps[:4] == (500, 450, 450, 400)
    for count, skip in ((3, 0), (10, 7)):
        with pytest.raises(
            RequestError, match="PNDM without skip_prk_steps begins with 3 others: expected at least 4"
        ):
            scheduler.plan(count, skip=skip)
    # By name, PLMS is meant.
    assert (
        resolve_scheduler("pndm", {**CONFIG, "_class_name": "DDIMScheduler"}).plan(10).num_evaluations == 11
    )
