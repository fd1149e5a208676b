"""Schedulers and noise against diffusers and torch, live."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from sdrt.common.rng import Generator
from sdrt.common.seeds import MAX_SEED
from sdrt.schedulers import SAMPLERS, Scheduler, resolve_scheduler

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from tools.goldens.scheduler_reference import run_reference  # noqa: E402
from tools.goldens.scheduler_runs import (  # noqa: E402
    FLOW,
    SD15,
    SHAPE,
    Case,
    all_cases,
    denoiser,
    model,
    named_settings,
    run,
    tolerance_of,
    worst_error,
)

# float32 state against float64, over at most 50 steps: 8e-7 is the largest measured.
TOLERANCE = 2e-6
# A model trained by flow matching takes no other class, where diffusers makes one of betas that it does not have.
CLASS_NAMES = dict.fromkeys(
    row.class_name for row in SAMPLERS.values() if row.class_name and not row.is_for_flow
)

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
# It also says that its first DPM-Solver will go.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning"),
]


def assert_same_timesteps(scheduler: Scheduler, steps: int, expected: tuple[float, ...]) -> None:
    found = scheduler.plan(steps).timesteps
    if all(timestep == int(timestep) for timestep in (*found, *expected)):
        assert found == expected
    else:
        # Fractions, interpolated between logarithms that diffusers rounds to float32, some of them twice: on some
        # processors they come out as whole numbers.
        np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-3 + cancelled(scheduler, steps)[0])


def cancelled(scheduler: Scheduler, steps: int) -> tuple[float, float]:
    """How far off diffusers' float32 may be in DPM2 a: its timesteps, and its states as a share of the largest level.

    It gets the middle of a step from s to t as the root of s · sqrt(t² - up²), where t⁴/s² is what is left of t²: a
    rounding of t² is (s/t)² times as large there, and a quarter of that after two roots.
    """
    if scheduler.sampler.name != "dpm2_a":
        return 0.0, 0.0
    plan, table = scheduler.plan(steps), np.asarray(scheduler.noise_schedule.sigmas, np.float64)
    per_timestep = np.gradient(np.log(table))
    off = [(t, np.finfo(np.float32).eps * (s / t) ** 2 / 4) for s, t in itertools.pairwise(plan.sigmas) if t]
    timesteps = [float(share / np.interp(t, table, per_timestep)) for t, share in off]
    states = [float(share * t / plan.sigmas[0]) for t, share in off]
    return max(timesteps, default=0.0), max(states, default=0.0)


THRESHOLDING = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.7}
QUICK = (2, 20)
TRAJECTORIES = [
    pytest.param(case, steps, id=f"{steps}-{case.id}", marks=() if steps in QUICK else pytest.mark.full)
    for steps in (*QUICK, 1, 5, 14, 15, 50)
    for case in all_cases()
    if not case.has_no_reference(steps)  # diffusers makes no step there
]


@pytest.mark.parametrize(("case", "steps"), TRAJECTORIES)
def test_trajectory_equals_diffusers(case: Case, steps: int) -> None:
    timesteps, expected = run_reference(case, steps)
    assert_same_timesteps(case.scheduler, steps, timesteps)
    tolerance = tolerance_of(case, TOLERANCE) + cancelled(case.scheduler, steps)[1]
    assert worst_error(run(case.scheduler, steps, eta=case.eta), expected) < tolerance


@pytest.mark.parametrize(
    ("sampler", "changes"),
    [
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min"}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "euler_at_final": True, "use_karras_sigmas": True}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("dpmpp_2m", {"solver_type": "heun", "timestep_spacing": "trailing"}),
        ("dpmpp_2m", {"solver_order": 1}),
        ("dpmpp_2m", {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
        ("dpmpp_2m", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}),
        ("euler", {"final_sigmas_type": "sigma_min"}),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 20.0, "steps_offset": 0}),
        ("euler", {"prediction_type": "sample", "beta_schedule": "linear"}),
        *((name, {"prediction_type": "sample"}) for name in ("ddim", "ddpm", "dpmpp_2m", "deis")),
        *((name, {"prediction_type": "sample"}) for name in ("unipc", "lcm", "tcd")),
        ("ddim", {"clip_sample": True, "clip_sample_range": 1.5}),
        ("ddim", {"set_alpha_to_one": True, "steps_offset": 0}),
        ("ddim", {"num_train_timesteps": 400, "trained_betas": np.linspace(1e-4, 0.03, 400).tolist()}),
        ("pndm", {"set_alpha_to_one": True, "steps_offset": 0}),
        ("dpmpp_2m_sde", {"solver_type": "heun"}),
        ("dpmpp_2m_sde", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("dpmpp_2s", {"final_sigmas_type": "sigma_min", "timestep_spacing": "linspace"}),
        ("dpmpp_3s", {"solver_type": "heun", "timestep_spacing": "linspace", "lower_order_final": True}),
        ("deis", {"solver_order": 3, "timestep_spacing": "linspace"}),
        ("deis", {"solver_order": 1}),
        ("unipc", {"solver_order": 3, "use_karras_sigmas": True}),
        (
            "unipc",
            {
                "solver_order": 3,
                "solver_type": "bh1",
                "lower_order_final": False,
                "final_sigmas_type": "sigma_min",
            },
        ),
        (
            "unipc",
            {
                "solver_order": 2,
                "solver_type": "bh1",
                "disable_corrector": [0, 3],
                "final_sigmas_type": "sigma_min",
            },
        ),
        ("unipc", {"solver_order": 1}),
        ("dpm_2m", {"solver_type": "heun"}),
        ("dpm_2m", {"prediction_type": "v_prediction", "lower_order_final": False, "euler_at_final": True}),
        ("dpm_2m", {"solver_order": 1, "timestep_spacing": "trailing"}),
        ("dpm_3m", {"timestep_spacing": "trailing"}),
        ("dpm_2m_sde", {"solver_type": "heun", "prediction_type": "sample"}),
        ("dpm_2m_sde", {"solver_order": 1}),
        ("dpm_2s", {"timestep_spacing": "linspace", "solver_type": "heun", "lower_order_final": True}),
        ("dpm_3s", {"timestep_spacing": "linspace", "solver_type": "heun", "lower_order_final": True}),
        ("dpm_3s", {"timestep_spacing": "linspace", "use_karras_sigmas": True, "lower_order_final": True}),
        ("dpmpp_2m", {"use_lu_lambdas": True}),
        ("dpmpp_2m", {"use_lu_lambdas": True, "use_exponential_sigmas": True}),
        ("dpmpp_2m", {"use_lu_lambdas": True, "use_karras_sigmas": True}),
        ("dpmpp_2m_sde", {"use_lu_lambdas": True, "beta_schedule": "squaredcos_cap_v2"}),
        *((name, dict(THRESHOLDING)) for name in ("ddim", "ddpm", "dpmpp_2m", "dpmpp_3m_sde", "dpm_2m")),
        *((name, dict(THRESHOLDING)) for name in ("deis", "unipc", "sa_solver", "lcm", "edm_dpmpp_2m")),
        ("dpmpp_2s", {**THRESHOLDING, "timestep_spacing": "linspace"}),
        ("ddim", {**THRESHOLDING, "clip_sample": True, "dynamic_thresholding_ratio": 0.4}),
        ("dpmpp_2m", {**THRESHOLDING, "sample_max_value": 0.5}),
        ("pndm", {"skip_prk_steps": False}),
        (
            "pndm",
            {"skip_prk_steps": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        ),
        ("pndm", {"skip_prk_steps": False, "set_alpha_to_one": True, "timestep_spacing": "linspace"}),
        ("sa_solver", {"predictor_order": 3, "corrector_order": 3, "timestep_spacing": "linspace"}),
        ("sa_solver", {"predictor_order": 1, "corrector_order": 1}),
        ("sa_solver", {"lower_order_final": False, "beta_schedule": "linear"}),
        ("heun", {"clip_sample": True, "clip_sample_range": 1.5}),
        ("ddpm", {"clip_sample": True, "clip_sample_range": 1.5}),
        ("ddpm", {"variance_type": "fixed_small_log"}),
        ("lcm", {"original_inference_steps": 100, "timestep_scaling": 5.0, "clip_sample": True}),
        ("tcd", {"original_inference_steps": 25}),
        ("edm_euler", {"sigma_data": 1.0, "sigma_min": 0.01, "sigma_max": 50.0}),
        ("edm_dpmpp_2m", {"final_sigmas_type": "sigma_min", "solver_type": "heun"}),
        *((name, {"shift": 1.0}) for name in ("flow_euler", "flow_heun")),
        ("flow_euler", {"shift": 0.5, "num_train_timesteps": 400, "use_exponential_sigmas": True}),
        ("flow_heun", {"shift": 6.0, "num_train_timesteps": 400}),
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [7, 20])
def test_options_of_a_config_do_what_they_do_in_diffusers(
    monkeypatch: pytest.MonkeyPatch, sampler: str, changes: dict[str, object], steps: int
) -> None:
    row = SAMPLERS[sampler]
    config = {**SD15, "_class_name": row.class_name, **named_settings(sampler), **changes}
    case = Case(sampler=sampler, spacing="as configured", prediction_type="as configured")
    monkeypatch.setattr(Case, "diffusers_config", config)
    monkeypatch.setattr(Case, "scheduler", resolve_scheduler(config, {}))
    timesteps, expected = run_reference(case, steps)
    assert_same_timesteps(case.scheduler, steps, timesteps)
    # Clipping takes away most of a number that float32 had rounded as a whole: 3.2e-6 measured.
    tolerance = 5e-6 if "clip_sample" in changes else TOLERANCE
    assert worst_error(run(case.scheduler, steps), expected) < tolerance


PLAIN = [
    row.name
    for row in SAMPLERS.values()
    if row.evaluations == 1
    and row.own_levels
    and "leading" in row.spacings
    and row.class_name != "DPMSolverSinglestepScheduler"  # which knows linspace only
]


@pytest.mark.full
@pytest.mark.parametrize("sampler", PLAIN)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_for_every_number_of_steps(sampler: str, spacing: str) -> None:
    case = Case(sampler=sampler, spacing=spacing, prediction_type="epsilon")
    ours = case.scheduler
    theirs = getattr(diffusers, SAMPLERS[sampler].class_name).from_config(case.diffusers_config)
    for steps in range(1, 999):
        theirs.set_timesteps(steps)
        expected = theirs.timesteps.tolist()
        if expected[-1] == -1:  # diffusers' trailing spacing has one timestep too many for some counts
            expected.pop()
        if len(set(expected)) < steps:  # of so many steps, diffusers' multistep classes take some twice
            continue
        assert list(ours.plan(steps).timesteps) == expected, steps


# diffusers cannot make a DPMSolverMultistepScheduler of these two's configs.
UNREADABLE = {("dpmpp_2m", "DEISMultistepScheduler"), ("dpmpp_2m", "SASolverScheduler")}


@pytest.mark.parametrize(
    ("sampler", "class_name"),
    sorted(set(itertools.product(["euler", "euler_a", "ddim", "dpmpp_2m"], CLASS_NAMES)) - UNREADABLE),
)
def test_a_name_means_what_from_config_makes_of_the_models_config(
    monkeypatch: pytest.MonkeyPatch, sampler: str, class_name: str
) -> None:
    source = getattr(diffusers, class_name).from_config({**SD15, "_class_name": class_name})
    config = json.loads(source.to_json_string())
    case = Case(sampler=sampler, spacing="as configured", prediction_type="as configured")
    monkeypatch.setattr(Case, "diffusers_config", config)
    monkeypatch.setattr(Case, "scheduler", resolve_scheduler(sampler, config))
    timesteps, expected = run_reference(case, 6)
    assert_same_timesteps(case.scheduler, 6, timesteps)
    assert worst_error(run(case.scheduler, 6), expected) < TOLERANCE


@pytest.mark.parametrize("sampler", ["flow_euler", "flow_heun"])
def test_flow_matching_begins_from_an_image_as_in_diffusers(sampler: str) -> None:
    case = Case(sampler=sampler, spacing="linspace", prediction_type=FLOW)
    ours, order = case.scheduler, SAMPLERS[sampler].evaluations
    clean, noise = (Generator(seed).randn(SHAPE) for seed in (1, 2))
    theirs = getattr(diffusers, SAMPLERS[sampler].class_name).from_config(case.diffusers_config)
    theirs.set_timesteps(10)
    theirs.set_begin_index(4 * order)
    remaining = theirs.timesteps[4 * order :]
    latents = theirs.scale_noise(torch.from_numpy(clean), remaining[:1], torch.from_numpy(noise))
    plan = ours.plan(10, skip=4)
    x = plan.noise_schedule.noised(clean, noise, plan.sigmas[0])
    np.testing.assert_allclose(x, latents.numpy(), rtol=1e-6, atol=1e-6)
    for timestep in remaining:
        output = torch.from_numpy(model(latents.numpy(), float(timestep)))
        latents = theirs.step(output, timestep, latents).prev_sample
    *_, last = ours.sample(denoiser(ours, plan), x, plan, noise=lambda: noise)
    np.testing.assert_allclose(last.x, latents.numpy(), rtol=1e-5, atol=2e-6)


def test_the_models_own_scheduler_is_corrected_as_the_pipeline_corrects_it() -> None:
    own: Scheduler = resolve_scheduler(None, {"_class_name": "DDIMScheduler"})
    assert (own.settings.steps_offset, own.settings.clip_sample) == (1, False)


def test_noise_equals_torch() -> None:
    for seed in (0, 12345, 2**32 - 1, 2**32 + 7, 2**63 + 5, MAX_SEED, -1, -5, -(2**63)):
        ours, theirs = Generator(seed), torch.Generator("cpu").manual_seed(seed)
        for length in (*range(1, 40), 4096, 1, 2, 4097):
            expected = torch.randn(length, generator=theirs).numpy()
            np.testing.assert_allclose(ours.randn(length), expected, atol=1e-6, rtol=1e-6)
