"""What holds for samplers without any model or reference."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from sdrt.errors import RequestError
from sdrt.schedulers import SAMPLERS, Scheduler, Step, resolve_scheduler

Latents = npt.NDArray[np.float32]
CONFIG = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "skip_prk_steps": True,
    "clip_sample": False,
    "steps_offset": 1,
}


def unit_gaussian(x: Latents, sigma: float) -> Latents:
    """The exact denoiser of standard normal data: x(σ) is then proportional to √(1 + σ²)."""
    return x * (1 / (1 + sigma**2))


def no_noise() -> Latents:
    raise AssertionError("a deterministic sampler drew noise")


def steps_of(scheduler: Scheduler, n: int, x: float = 1.0) -> list[Step]:
    plan = scheduler.plan(n)
    start = np.full((1, 1, 1, 1), x * math.hypot(1, plan.sigmas[0]), dtype=np.float32)
    return list(scheduler.sample(unit_gaussian, start, plan, noise=no_noise))


def error_before_last(scheduler: Scheduler, n: int) -> float:
    """Relative error at the last level above zero."""
    step = steps_of(scheduler, n)[-2]
    return abs(float(step.x.item()) / math.hypot(1, step.sigma) - 1)


@pytest.mark.parametrize(
    ("name", "spacing", "order"),
    [("euler", "karras", 1), ("ddim", "trailing", 1), ("pndm", "trailing", 2), ("dpmpp_2m", "karras", 2)],
)
def test_order_of_convergence(name: str, spacing: str, order: int) -> None:
    scheduler = resolve_scheduler(name, CONFIG, spacing)
    measured = math.log2(error_before_last(scheduler, 25) / error_before_last(scheduler, 50))
    assert measured > order - 0.35


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_yielded_per_planned_evaluation(name: str) -> None:
    scheduler = resolve_scheduler(name, CONFIG)
    plan = scheduler.plan(6)
    seen: list[float] = []

    def denoise(x: Latents, sigma: float) -> Latents:
        seen.append(plan.timestep(sigma))
        return unit_gaussian(x, sigma)

    x = np.ones((1, 4, 2, 2), dtype=np.float32) * plan.init_scale
    steps = list(scheduler.sample(denoise, x, plan, noise=lambda: np.zeros_like(x)))
    assert tuple(seen) == plan.timesteps == tuple(step.timestep for step in steps)
    assert [step.index for step in steps] == list(range(plan.num_evaluations))
    assert [step.sigma for step in steps] == list(plan.sigmas[1:])
    assert [step.last for step in steps] == [False] * (plan.num_evaluations - 1) + [True]
    assert all(step.x.dtype == step.denoised.dtype == np.float32 for step in steps)
    np.testing.assert_array_equal(x, plan.init_scale * np.ones_like(x))


def test_pndm_evaluates_its_second_timestep_twice() -> None:
    plan = resolve_scheduler("pndm", CONFIG).plan(5)
    assert plan.timesteps == (801, 601, 601, 401, 201, 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_writing_into_a_step_changes_the_rest_of_the_run(name: str) -> None:
    scheduler = resolve_scheduler(name, CONFIG)
    plan = scheduler.plan(6)
    x = np.ones((1, 1, 1, 1), dtype=np.float32) * plan.init_scale

    def final(written: float) -> float:
        for step in scheduler.sample(unit_gaussian, x, plan, noise=lambda: np.zeros_like(x)):
            if step.index == 3:
                step.x[...] += written
        return float(step.x.item())

    assert final(1.0) > final(0.0) + 0.05
    assert final(-1.0) < final(0.0) - 0.05


@pytest.mark.parametrize(
    ("name", "eta", "draws"), [("euler_a", 0.0, 6), ("ddim", 0.5, 6), ("ddim", 0.0, 0), ("euler", 1.0, 0)]
)
def test_stochastic_samplers_draw_once_per_step(name: str, eta: float, draws: int) -> None:
    scheduler = resolve_scheduler(name, CONFIG)
    assert scheduler.stochastic(eta) == (draws > 0)
    plan, drawn = scheduler.plan(6), []

    def noise() -> Latents:
        drawn.append(1)
        return np.ones((1, 1, 1, 1), dtype=np.float32)

    x = np.ones((1, 1, 1, 1), dtype=np.float32) * plan.init_scale
    assert len(list(scheduler.sample(unit_gaussian, x, plan, noise=noise, eta=eta))) == 6
    assert len(drawn) == draws


def test_ancestral_noise_keeps_the_variance_of_the_level() -> None:
    scheduler = resolve_scheduler("euler_a", CONFIG, "karras")
    plan, random = scheduler.plan(200), np.random.default_rng(0)

    def noise() -> Latents:
        return random.standard_normal((1, 4, 32, 32)).astype(np.float32)

    x = noise() * math.hypot(1, plan.sigmas[0])
    steps = list(scheduler.sample(unit_gaussian, x, plan, noise=noise))
    # Of first order: 9 % off with 40 steps, 4 % with 200.
    assert float(steps[-2].x.std()) == pytest.approx(math.hypot(1, steps[-2].sigma), rel=0.06)


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
