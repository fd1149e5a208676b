"""Flow matching as one more noise schedule: what it computes, who may ask for it, and who may not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.schedulers import (
    SAMPLERS,
    DiscreteNoiseSchedule,
    FlowNoiseSchedule,
    NoiseSchedule,
    Scheduler,
    Step,
    resolve_scheduler,
)
from sdrt.tasks.inpainting import KnownRegion

Latents = npt.NDArray[np.float32]
FLOW: dict[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.29.0.dev0",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
BETAS: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "skip_prk_steps": True,
}
EDM: dict[str, Any] = {"_class_name": "EDMEulerScheduler"}


def schedule_of(config: dict[str, Any]) -> NoiseSchedule:
    return resolve_scheduler(None, config).noise_schedule


def no_noise() -> Latents:
    raise AssertionError("a deterministic sampler drew noise")


def spread(sigma: float) -> float:
    """Of the states at a level, where the data is standard normal."""
    return math.hypot(1 - sigma, sigma)


def unit_gaussian(x: Latents, sigma: float) -> Latents:
    """The exact denoiser of standard normal data: x(σ) is then proportional to `spread`."""
    return x * np.float32((1 - sigma) / spread(sigma) ** 2)


def steps_of(scheduler: Scheduler, n: int) -> list[Step]:
    plan = scheduler.plan(n)
    start = np.full((1, 1, 1, 1), plan.init_scale, dtype=np.float32)
    return list(scheduler.sample(unit_gaussian, start, plan, noise=no_noise))


def test_the_model_s_velocity_gives_the_clean_latents() -> None:
    clean, noise, sigma = 0.7, -1.3, 0.4
    schedule = schedule_of(FLOW)
    x = schedule.noised(np.float32([clean]), np.float32([noise]), sigma)
    assert x.dtype == np.float32
    assert x == pytest.approx((1 - sigma) * clean + sigma * noise)
    c_skip, c_out, c_in = schedule.scalings(sigma)
    assert c_in == 1
    assert c_skip * x + c_out * (noise - clean) == pytest.approx(clean)


@pytest.mark.parametrize("config", [BETAS, EDM])
def test_elsewhere_noise_is_added_to_the_whole_of_the_image(config: dict[str, Any]) -> None:
    schedule, random = schedule_of(config), np.random.default_rng(0)
    clean, noise = random.standard_normal((2, 1, 4, 8, 8)).astype(np.float32)
    expected = clean + np.float32(2.37) * noise
    np.testing.assert_array_equal(schedule.noised(clean, noise, 2.37), expected)


@pytest.mark.parametrize(("config", "sigma"), [(BETAS, 2.5), (EDM, 2.5), (FLOW, 0.3)])
def test_levels_and_timesteps_are_each_other_s_inverse(config: dict[str, Any], sigma: float) -> None:
    schedule = schedule_of(config)
    there = float(schedule.timestep_at(sigma))
    assert float(schedule.sigma_at(there)) == pytest.approx(sigma, rel=1e-4)


def test_a_run_begins_from_the_noise_itself_and_its_states_are_diffusers_latents() -> None:
    plan = resolve_scheduler(None, FLOW).plan(10)
    assert (plan.sigmas[0], plan.sigmas[-1], plan.timesteps[0]) == (1.0, 0.0, 1000.0)
    assert (plan.init_scale, plan.variance_preserving) == (1.0, False)
    assert [plan.latents_scale(sigma) for sigma in plan.sigmas] == [1.0] * 11


def test_a_shift_spends_steps_at_high_levels() -> None:
    plain, shifted = (resolve_scheduler(None, FLOW | {"shift": shift}).plan(4) for shift in (1.0, 3.0))
    assert plain.sigmas == pytest.approx((1.0, 0.667, 0.334, 0.001, 0.0), abs=1e-6)
    moved = [3 * sigma / (1 + 2 * sigma) for sigma in (1.0, 0.667665)]
    assert shifted.sigmas[:2] == pytest.approx(moved, abs=1e-4)
    assert shifted.timesteps == pytest.approx([1000 * sigma for sigma in shifted.sigmas[:-1]])


@pytest.mark.parametrize(("name", "order"), [("flow_euler", 1), ("flow_heun", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    def error(n: int) -> float:
        step = steps_of(resolve_scheduler(name, FLOW | {"shift": 1.0}), n)[-2]
        return abs(float(step.x.item()) / spread(step.sigma) - 1)

    assert math.log2(error(20) / error(40)) > order - 0.35


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (None, "flow_euler"),
        ("euler", "flow_euler"),
        ("Euler", "flow_euler"),
        ("heun", "flow_heun"),
        ("flow_euler", "flow_euler"),
        ("FlowMatchHeunDiscreteScheduler", "flow_heun"),
        ("Euler Karras", "flow_euler"),
        (FLOW, "flow_euler"),
    ],
    ids=str,
)
def test_what_a_model_of_flow_matching_takes(asked: Any, name: str) -> None:
    scheduler = resolve_scheduler(asked, FLOW)
    assert scheduler.name == name
    assert scheduler.noise_schedule == FlowNoiseSchedule(num_train_timesteps=1000, shift=3.0)
    assert resolve_scheduler(scheduler, FLOW) is scheduler


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if row.on_flow is None])
def test_a_rule_that_does_not_hold_there_is_refused_and_those_that_do_are_listed(name: str) -> None:
    with pytest.raises(RequestError, match=f"'{name}' is (not )?for models trained ") as error:
        resolve_scheduler(name, FLOW)
    assert "'FlowMatchEulerDiscreteScheduler'" in str(error.value)
    if not SAMPLERS[name].is_for_edm:
        assert str(error.value).endswith("choose one of: euler, heun, flow_euler, flow_heun")


@pytest.mark.parametrize(
    "asked",
    ["flow_euler", "flow_heun", FLOW, resolve_scheduler(None, FLOW)],
    ids=["flow_euler", "flow_heun", "config", "scheduler"],
)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_model_trained_on_betas_takes_none(asked: Any, prediction_type: str) -> None:
    model = BETAS | {"prediction_type": prediction_type}
    expected = rf"is for models trained by flow matching, .* 'PNDMScheduler' with prediction_type '{prediction_type}'"
    with pytest.raises(RequestError, match=expected):
        resolve_scheduler(asked, model)


def test_a_config_of_betas_is_refused_for_a_model_of_flow_matching() -> None:
    with pytest.raises(RequestError, match="'ddim' is not for models trained by flow matching"):
        resolve_scheduler({"_class_name": "DDIMScheduler"}, FLOW)
    with pytest.raises(RequestError, match="'pndm' is not for models trained by flow matching"):
        resolve_scheduler(resolve_scheduler(None, BETAS), FLOW)


def test_a_config_for_no_known_model_is_read() -> None:
    assert isinstance(resolve_scheduler(FLOW, {}).noise_schedule, FlowNoiseSchedule)
    assert isinstance(resolve_scheduler(BETAS, {}).noise_schedule, DiscreteNoiseSchedule)


@pytest.mark.parametrize("class_name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dynamic_shifting", True),
        ("shift_terminal", 0.02),
        ("invert_sigmas", True),
        ("shift", 0),
        ("shift", "3"),
        ("num_train_timesteps", 1),
    ],
)
def test_what_changes_the_image_and_is_not_supported_is_named(class_name: str, key: str, value: Any) -> None:
    config = FLOW | {"_class_name": class_name, key: value}
    with pytest.raises(UnsupportedModelError, match=rf"{class_name}\): {key} is .*; supported: "):
        resolve_scheduler(None, config)


def test_fresh_noise_in_each_step_is_not_supported() -> None:
    with pytest.raises(UnsupportedModelError, match="stochastic_sampling is True; supported: False"):
        resolve_scheduler(None, FLOW | {"stochastic_sampling": True})


def test_keys_of_a_shift_by_the_image_s_size_are_passed_over_where_it_is_off() -> None:
    unused = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    config = {**FLOW, **unused, "use_dynamic_shifting": False, "time_shift_type": "exponential"}
    assert resolve_scheduler(None, config).name == "flow_euler"


def test_spacings_and_levels_of_a_call() -> None:
    scheduler = resolve_scheduler("euler", FLOW)
    assert scheduler.with_spacing("karras").plan(5).sigmas[0] == pytest.approx(1.0)
    with pytest.raises(
        RequestError, match="'ays' is not for scheduler 'flow_euler'; choose one of: linspace, "
    ):
        scheduler.with_spacing("ays")
    plan = scheduler.with_levels(sigmas=[0.9, 0.5, 0.25, 0.0]).plan(3)
    assert plan.sigmas == pytest.approx((0.9, 0.5, 0.25, 0.0))
    assert plan.timesteps == pytest.approx((900, 500, 250))
    with pytest.raises(RequestError, match="expected at most 1, which is pure noise"):
        scheduler.with_levels(sigmas=[14.6, 0.5, 0.0])
    with pytest.raises(RequestError, match="'flow_euler' takes no timesteps"):
        scheduler.with_levels(timesteps=[999, 500])


def test_the_known_part_of_an_image_is_as_noisy_as_the_rest() -> None:
    plan, random = resolve_scheduler(None, FLOW).plan(4), np.random.default_rng(0)
    clean, noise, made = random.standard_normal((3, 1, 4, 2, 2)).astype(np.float32)
    known = KnownRegion(clean=clean, noise=noise, mask=np.array([[[[0, 1], [1, 1]]]], np.float32))
    for sigma in plan.sigmas[1:]:
        x = made.copy()
        known.restore(x, sigma, plan, last=sigma == 0)
        np.testing.assert_allclose(
            x[..., 0, 0], ((1 - sigma) * clean + sigma * noise)[..., 0, 0], rtol=1e-6, atol=1e-6
        )
        np.testing.assert_array_equal(x[..., 1, :], made[..., 1, :])
