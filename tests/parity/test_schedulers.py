"""Schedulers and noise against diffusers and torch, live."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sdrt.rng import MAX_SEED, Generator
from sdrt.schedulers import SAMPLERS, Scheduler, resolve_scheduler

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))

from scheduler_reference import run_reference  # noqa: E402
from scheduler_runs import SD15, Case, all_cases, run, worst_error  # noqa: E402

# float32 state against float64, over at most 50 steps: 8e-7 is the largest measured.
TOLERANCE = 2e-6
CLASS_NAMES = [row.class_name for row in SAMPLERS.values()]

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def assert_same_timesteps(scheduler: Scheduler, steps: int, expected: tuple[float, ...]) -> None:
    found = scheduler.plan(steps).timesteps
    if scheduler.name == "euler" and scheduler.spacing == "karras":
        # Fractions, interpolated from square roots that torch's vector unit rounds its own way: 1 or 2 ulp.
        np.testing.assert_allclose(found, expected, rtol=3e-7)
    else:
        assert found == expected


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
@pytest.mark.parametrize("steps", [1, 2, 5, 14, 15, 20, 50])
def test_trajectory_equals_diffusers(case: Case, steps: int) -> None:
    timesteps, expected = run_reference(case, steps)
    assert_same_timesteps(case.scheduler, steps, timesteps)
    assert worst_error(run(case.scheduler, steps, eta=case.eta), expected) < TOLERANCE


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
        ("ddim", {"clip_sample": True, "clip_sample_range": 1.5}),
        ("ddim", {"set_alpha_to_one": True, "steps_offset": 0}),
        ("ddim", {"num_train_timesteps": 400, "trained_betas": np.linspace(1e-4, 0.03, 400).tolist()}),
        ("pndm", {"set_alpha_to_one": True, "steps_offset": 0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [7, 20])
def test_options_of_a_config_do_what_they_do_in_diffusers(
    monkeypatch: pytest.MonkeyPatch, sampler: str, changes: dict[str, object], steps: int
) -> None:
    config = {**SD15, "_class_name": SAMPLERS[sampler].class_name, **changes}
    case = Case(sampler=sampler, spacing="as configured", prediction_type="as configured")
    monkeypatch.setattr(Case, "diffusers_config", config)
    monkeypatch.setattr(Case, "scheduler", resolve_scheduler(config, {}))
    timesteps, expected = run_reference(case, steps)
    assert_same_timesteps(case.scheduler, steps, timesteps)
    # Clipping takes away most of a number that float32 had rounded as a whole: 3.2e-6 measured.
    tolerance = 5e-6 if "clip_sample" in changes else TOLERANCE
    assert worst_error(run(case.scheduler, steps), expected) < tolerance


@pytest.mark.parametrize("sampler", SAMPLERS)
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
        if sampler == "dpmpp_2m" and len(set(expected)) < steps:
            continue
        assert list(ours.plan(steps).timesteps) == expected, steps


@pytest.mark.parametrize("class_name", [*CLASS_NAMES, "LMSDiscreteScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize("sampler", ["euler", "euler_a", "ddim", "dpmpp_2m"])
def test_a_name_means_what_from_config_makes_of_the_models_config(
    monkeypatch: pytest.MonkeyPatch, class_name: str, sampler: str
) -> None:
    source = getattr(diffusers, class_name).from_config({**SD15, "_class_name": class_name})
    config = json.loads(source.to_json_string())
    case = Case(sampler=sampler, spacing="as configured", prediction_type="as configured")
    monkeypatch.setattr(Case, "diffusers_config", config)
    monkeypatch.setattr(Case, "scheduler", resolve_scheduler(sampler, config))
    timesteps, expected = run_reference(case, 6)
    assert_same_timesteps(case.scheduler, 6, timesteps)
    assert worst_error(run(case.scheduler, 6), expected) < TOLERANCE


def test_the_models_own_scheduler_is_corrected_as_the_pipeline_corrects_it() -> None:
    own: Scheduler = resolve_scheduler(None, {"_class_name": "DDIMScheduler"})
    assert (own.settings.steps_offset, own.settings.clip_sample) == (1, False)


def test_noise_equals_torch() -> None:
    for seed in (0, 12345, MAX_SEED):
        ours, theirs = Generator(seed), torch.Generator("cpu").manual_seed(seed)
        for length in (*range(1, 40), 4096, 1, 2, 4097):
            expected = torch.randn(length, generator=theirs).numpy()
            np.testing.assert_allclose(ours.randn(length), expected, atol=1e-6, rtol=1e-6)
