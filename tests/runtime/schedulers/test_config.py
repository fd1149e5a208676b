"""Names, files and configs that users give, and what they get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.schedulers import SAMPLERS, resolve_scheduler, scheduler_names
from tools.goldens.scheduler_runs import SD15

ON_BETAS = [name for name, row in SAMPLERS.items() if not (row.is_for_edm or row.is_for_flow)]


@pytest.mark.parametrize(
    ("given", "name", "display_name"),
    [
        (None, "pndm", "PLMS"),
        ("euler", "euler", "Euler"),
        ("Euler a", "euler_a", "Euler a"),
        ("EULER_A", "euler_a", "Euler a"),
        ("DPM++ 2M Karras", "dpmpp_2m", "DPM++ 2M Karras"),
        ("dpmpp_2m_karras", "dpmpp_2m", "DPM++ 2M Karras"),
        ("DPM++ 2M", "dpmpp_2m", "DPM++ 2M"),
        ("PLMS", "pndm", "PLMS"),
        ("dpm_2_ancestral", "dpm2_a", "DPM2 a"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "DPM++ 2M SDE Exponential"),
        ("uni_pc", "unipc", "UniPC"),
        ("euler SGM uniform", "euler", "Euler SGM Uniform"),
        ("Heun beta", "heun", "Heun Beta"),
        ("dpmpp_2m align your steps", "dpmpp_2m", "DPM++ 2M Align Your Steps"),
        ("EulerAncestralDiscreteScheduler", "euler_a", "Euler a"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m", "DPM++ 2M"),
        ({"_class_name": "DDIMScheduler"}, "ddim", "DDIM"),
    ],
)
def test_what_users_call_schedulers(given: Any, name: str, display_name: str) -> None:
    scheduler = resolve_scheduler(given, SD15)
    assert (scheduler.name, scheduler.display_name) == (name, display_name)
    assert resolve_scheduler(scheduler, SD15) is scheduler


def test_every_listed_name_resolves() -> None:
    def own(name: str) -> dict[str, Any]:
        row = SAMPLERS[name]
        return SD15 | ({"_class_name": row.class_name} if row.is_for_edm or row.is_for_flow else {})

    assert [resolve_scheduler(name, own(name)).name for name in scheduler_names()] == list(SAMPLERS)


def test_edm_is_for_models_that_say_so() -> None:
    with pytest.raises(
        RequestError,
        match=r"'edm_euler' is for models trained as in EDM, .* own scheduler is 'PNDMScheduler'",
    ):
        resolve_scheduler("edm_euler", SD15)
    assert resolve_scheduler({"_class_name": "EDMEulerScheduler"}, SD15).name == "edm_euler"


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_to_a_config(tmp_path: Path, as_folder: bool, kind: type) -> None:
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}))
    scheduler = resolve_scheduler(kind(tmp_path if as_folder else file), SD15)
    assert (scheduler.name, scheduler.spacing) == ("euler", "karras")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        pytest.param("[" * 100_000, "not valid JSON", id="depth"),
        pytest.param('{"beta_start": ' + "1" * 5000 + "}", "not valid JSON", id="digits"),
        ("[]", "is not a JSON object"),
        (None, "No such"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RequestError, match=message):
        resolve_scheduler(file, SD15)


def test_unknown_names_list_the_valid_ones() -> None:
    with pytest.raises(RequestError, match=r"unknown scheduler 'eular'.*did you mean euler.*dpmpp_2m"):
        resolve_scheduler("eular", SD15)
    with pytest.raises(RequestError, match=r"unknown spacing 'even'; choose one of: leading, trailing"):
        resolve_scheduler("euler", SD15, "even")
    with pytest.raises(RequestError, match=r"'karras' is not for scheduler 'ddim'"):
        resolve_scheduler("DDIM Karras", SD15)
    with pytest.raises(RequestError, match="contradicts"):
        resolve_scheduler("Euler Karras", SD15, "trailing")


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "karras"])
def test_a_spacing_replaces_the_configs(spacing: str) -> None:
    config = {**SD15, "use_karras_sigmas": True}
    assert resolve_scheduler("euler", config, spacing).spacing == spacing
    assert resolve_scheduler(resolve_scheduler("euler", config), config, spacing).spacing == spacing


def test_a_name_keeps_the_models_noise_schedule_and_what_both_know() -> None:
    own = resolve_scheduler(None, {**SD15, "prediction_type": "v_prediction"})
    other = resolve_scheduler("ddim", {**SD15, "prediction_type": "v_prediction"})
    np.testing.assert_array_equal(own.noise_schedule.alphas_cumprod, other.noise_schedule.alphas_cumprod)
    assert other.noise_schedule.prediction_type == "v_prediction"
    assert (other.spacing, other.settings.steps_offset, other.settings.set_alpha_to_one) == (
        "leading",
        1,
        False,
    )


def test_missing_keys_take_the_named_classs_defaults() -> None:
    assert resolve_scheduler({"_class_name": "DDIMScheduler"}, {}).settings.clip_sample is True
    assert resolve_scheduler({"_class_name": "DDIMScheduler"}, {}).spacing == "leading"
    assert resolve_scheduler({"_class_name": "EulerDiscreteScheduler"}, {}).spacing == "linspace"
    config = {
        "_class_name": "PNDMScheduler",
        "skip_prk_steps": True,
        "_use_default_values": ["timestep_spacing"],
    }
    assert resolve_scheduler("euler", {**config, "timestep_spacing": "leading"}).spacing == "linspace"


@pytest.mark.parametrize(
    ("class_name", "key", "value"),
    [
        ("PNDMScheduler", "skip_prk_steps", 0),
        ("PNDMScheduler", "beta_schedule", "sigmoid"),
        ("DDIMScheduler", "thresholding", 1),
        ("DDIMScheduler", "dynamic_thresholding_ratio", 1.5),
        ("DDIMScheduler", "sample_max_value", 0),
        ("EulerDiscreteScheduler", "shift", "x"),
        ("EulerDiscreteScheduler", "shift", 3.0),
        ("UniPCMultistepScheduler", "shift", 3.0),
        ("EDMEulerScheduler", "shift", False),
        ("DDIMScheduler", "beta_start", "0.1"),
        ("DDIMScheduler", "rescale_betas_zero_snr", True),
        ("DDIMScheduler", "trained_betas", [0.1, 0.2]),
        ("DPMSolverMultistepScheduler", "use_lu_lambdas", 1),
        ("EulerDiscreteScheduler", "interpolation_type", "log_linear"),
        ("EulerDiscreteScheduler", "a_key_of_tomorrow", 3),
        ("EulerAncestralDiscreteScheduler", "prediction_type", "flow_prediction"),
        ("DPMSolverMultistepScheduler", "algorithm_type", "sde-dpmsolver+++"),
        ("DPMSolverSinglestepScheduler", "algorithm_type", "sde-dpmsolver"),
        ("EDMDPMSolverMultistepScheduler", "algorithm_type", "dpmsolver"),
        ("DPMSolverMultistepScheduler", "solver_order", 4),
        ("DPMSolverSinglestepScheduler", "algorithm_type", "sde-dpmsolver++"),
        ("DDPMScheduler", "variance_type", "fixed_large"),
        ("UniPCMultistepScheduler", "predict_x0", False),
        ("UniPCMultistepScheduler", "disable_corrector", [-1]),
        ("SASolverScheduler", "algorithm_type", "noise_prediction"),
        ("LCMScheduler", "original_inference_steps", 0),
        ("EDMEulerScheduler", "sigma_data", 0),
        ("DPMSolverMultistepScheduler", "use_flow_sigmas", True),
        ("DPMSolverMultistepScheduler", "variance_type", "learned"),
        ("DPMSolverMultistepScheduler", "lambda_min_clipped", 10**400),
        ("EulerDiscreteScheduler", "sigma_max", 10**400),
        ("EulerDiscreteScheduler", "sigma_min", float("inf")),
        ("EulerDiscreteScheduler", "beta_end", float("nan")),
        ("DDIMScheduler", "clip_sample_range", 1e-300),
        ("DDIMScheduler", "_use_default_values", 5),
        ("DDIMScheduler", "_use_default_values", [["beta_start"]]),
        ("DDIMScheduler", "a_key_of_tomorrow", np.ones(2)),
        pytest.param("DDIMScheduler", "k" * 10_000, 1, id="long"),
    ],
)
def test_a_key_that_changes_the_image_is_refused_by_name(class_name: str, key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        resolve_scheduler({"_class_name": class_name, "skip_prk_steps": True, key: value}, SD15)
    assert key[:60] in str(error.value)
    assert len(str(error.value)) < 400
    assert class_name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("class_name", "key", "value"),
    [
        ("PNDMScheduler", "thresholding", True),
        ("EulerAncestralDiscreteScheduler", "use_exponential_sigmas", True),
        ("DPMSolverMultistepScheduler", "flow_shift", 3.0),
        ("EulerDiscreteScheduler", "shift", 1.0),
        ("EulerDiscreteScheduler", "use_lu_lambdas", True),
        ("EulerDiscreteScheduler", "thresholding", True),
        ("DPMSolverMultistepScheduler", "solver_type", "bh2"),
        ("DPMSolverMultistepScheduler", "algorithm_type", "deis"),
        ("EulerDiscreteScheduler", "a_key_of_tomorrow", None),
    ],
)
def test_a_key_that_the_class_does_not_read_is_passed_over(class_name: str, key: str, value: object) -> None:
    config = {"_class_name": class_name, "skip_prk_steps": True, key: value}
    assert resolve_scheduler(config, SD15).sampler.class_name == class_name


def test_two_ways_to_place_the_levels_contradict() -> None:
    both = {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "use_beta_sigmas": True}
    with pytest.raises(
        UnsupportedModelError, match="use_beta_sigmas is True; supported: false with use_karras"
    ):
        resolve_scheduler(both, SD15)


@pytest.mark.parametrize(
    ("algorithm_type", "solver_order", "name"),
    [
        ("dpmsolver++", 1, "dpmpp_2m"),
        ("dpmsolver++", 2, "dpmpp_2m"),
        ("dpmsolver++", 3, "dpmpp_3m"),
        ("sde-dpmsolver++", 2, "dpmpp_2m_sde"),
        ("sde-dpmsolver++", 3, "dpmpp_3m_sde"),
        ("dpmsolver", 1, "dpm_2m"),
        ("dpmsolver", 2, "dpm_2m"),
        ("dpmsolver", 3, "dpm_3m"),
        ("sde-dpmsolver", 2, "dpm_2m_sde"),
    ],
)
def test_a_config_says_which_of_a_class_s_samplers_it_means(
    algorithm_type: str, solver_order: int, name: str
) -> None:
    config = {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": algorithm_type}
    final = {} if "++" in algorithm_type else {"final_sigmas_type": "sigma_min"}
    scheduler = resolve_scheduler({**config, **final, "solver_order": solver_order}, SD15)
    assert (scheduler.name, scheduler.settings.solver_order) == (name, solver_order)


def test_a_name_is_an_algorithm_and_an_order_whatever_the_model_s_config_says() -> None:
    config = {**SD15, "algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    settings = resolve_scheduler("dpmpp_2m", config).settings
    assert (settings.algorithm_type, settings.solver_order) == ("dpmsolver++", 2)


def test_distilled_models_take_the_steps_they_were_distilled_on() -> None:
    lcm = resolve_scheduler("lcm", SD15)
    assert lcm.plan(4).timesteps == (999, 759, 499, 259)
    with pytest.raises(RequestError, match="num_inference_steps is 51, but the model was distilled on"):
        lcm.plan(51)
    with pytest.raises(RequestError, match="'karras' is not for scheduler 'lcm'; leave it out"):
        lcm.with_spacing("karras")


@pytest.mark.parametrize("class_name", ["ScoreSdeVeScheduler", "IPNDMScheduler", None, 3])
def test_an_unsupported_class_is_named_and_the_supported_ones_listed(class_name: object) -> None:
    config = {**SD15, "_class_name": class_name}
    with pytest.raises(UnsupportedModelError, match=r"_class_name is .*supported: EulerDiscreteScheduler"):
        resolve_scheduler(None, config)
    assert resolve_scheduler("euler", config).name == "euler"


def test_a_key_that_is_no_text_is_named() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"DDIMScheduler\): 5 is 1; supported: keys that are texts"
    ):
        resolve_scheduler({"_class_name": "DDIMScheduler", 5: 1}, SD15)


def test_a_schedule_of_absurd_length_is_refused() -> None:
    for key in ("num_train_timesteps", "steps_offset"):
        with pytest.raises(UnsupportedModelError, match=f"{key} is 100000000000; supported: a whole number"):
            resolve_scheduler({"_class_name": "EulerDiscreteScheduler", key: 10**11}, SD15)


@pytest.mark.parametrize("name", ON_BETAS)
def test_ddpm_s_variance_is_nobody_else_s_concern(name: str) -> None:
    ddpm = {**SD15, "_class_name": "DDPMScheduler", "variance_type": "fixed_small"}
    assert resolve_scheduler(name, ddpm).name == name


def test_a_learned_variance_is_refused_by_those_that_would_use_it() -> None:
    with pytest.raises(UnsupportedModelError, match="variance_type is 'learned_range'"):
        resolve_scheduler("dpmpp_2m", {**SD15, "variance_type": "learned_range"})


TRAINED = dict.fromkeys(SAMPLERS[name].class_name for name in ON_BETAS if SAMPLERS[name].own_levels)


@pytest.mark.parametrize("class_name", TRAINED)
@pytest.mark.parametrize(
    "odd",
    [
        {"beta_start": 1e-40, "beta_end": 1e-40},
        {"beta_start": 0.999, "beta_end": 0.999},
        {"trained_betas": [1e-9] * 1000},
        {"trained_betas": [0.5] * 1000},
        {"num_train_timesteps": 100_000, "beta_start": 0.02, "beta_end": 0.02},
    ],
)
def test_betas_without_usable_noise_levels(class_name: str, odd: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="the betas give noise levels that do not rise"):
        resolve_scheduler(SD15 | odd | {"_class_name": class_name}, SD15)


@pytest.mark.parametrize(
    ("class_name", "odd"),
    [
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 10, "sigma_max": 1}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_max": 1e30}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 1e-300}),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": 1e29}),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": float("inf")}),
    ],
)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_options_without_usable_noise_levels(class_name: str, odd: dict[str, Any], spacing: str) -> None:
    scheduler = resolve_scheduler(SD15 | odd | {"_class_name": class_name, "timestep_spacing": spacing}, SD15)
    with pytest.raises(
        (UnsupportedModelError, RequestError), match=r"noise levels of 5 steps do not fall|twice"
    ):
        scheduler.plan(5)


@pytest.mark.parametrize("name", ["Karras", "SGM Uniform", "align your steps", " beta "])
def test_spacings_have_a1111s_names_too(name: str) -> None:
    spacing = resolve_scheduler("euler", SD15, spacing=name).spacing
    assert spacing == name.strip().lower().replace(" ", "_")
    with pytest.raises(RequestError, match="unknown spacing 'Normally'"):
        resolve_scheduler("euler", SD15, spacing="Normally")
