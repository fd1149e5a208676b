"""Schedulers in other programs' metadata: what A1111, Forge, SD.Next and ComfyUI write, and what A1111 reads."""

from __future__ import annotations

from typing import Any

import pytest

from sdrt.errors import RequestError
from sdrt.schedulers import (
    SAMPLERS,
    resolve_scheduler,
    schedule_type_of,
    scheduler_of_a1111,
    scheduler_of_comfyui,
)

# As SDXL's and many fine-tuned models' configs: whatever is not said is leading.
CONFIG: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
# A1111 1.10.1's and Forge's samplers, and the default schedule of each (modules/sd_samplers_kdiffusion.py).
A1111 = {
    "DPM++ 2M": ("dpmpp_2m", "karras"),
    "DPM++ SDE": ("dpmpp_sde", "karras"),
    "DPM++ 2M SDE": ("dpmpp_2m_sde", "exponential"),
    "DPM++ 2M SDE Heun": ("dpmpp_2m_sde_heun", "exponential"),
    "DPM++ 2S a": ("dpmpp_2s_a", "karras"),
    "DPM++ 3M SDE": ("dpmpp_3m_sde", "exponential"),
    "Euler a": ("euler_a", "linspace"),
    "Euler": ("euler", "linspace"),
    "LMS": ("lms", "linspace"),
    "Heun": ("heun", "linspace"),
    "DPM2": ("dpm2", "karras"),
    "DPM2 a": ("dpm2_a", "karras"),
    "Restart": ("restart", "karras"),
    "DDIM": ("ddim", "leading"),
    "DDIM CFG++": ("ddim_cfgpp", "leading"),
    "PLMS": ("pndm", "leading"),
    "UniPC": ("unipc", "linspace"),
    "DEIS": ("deis", "normal"),
    "IPNDM": ("ipndm", "linspace"),
}
OWN_LEVELS = {"DPM fast": "dpm_fast", "DPM adaptive": "dpm_adaptive", "LCM": "lcm"}


def found(*texts: str | None) -> tuple[str, str]:
    scheduler = resolve_scheduler(scheduler_of_a1111(*texts), CONFIG)
    return scheduler.name, scheduler.spacing


@pytest.mark.parametrize("schedule_type", ["Automatic", "automatic", None, ""])
@pytest.mark.parametrize(
    "version", ["v1.9.0", "v1.10.1", "f2.0.1v1.10.1-previous-659-gc055f2d4", None, "odd"]
)
@pytest.mark.parametrize("sampler", A1111)
def test_automatic_is_a_default_of_the_sampler(
    sampler: str, version: str | None, schedule_type: str | None
) -> None:
    assert found(sampler, schedule_type, version) == A1111[sampler]


@pytest.mark.parametrize(
    "version", ["v1.6.0-2-g4afaaf8a", "v1.8.0", "1.7.0", "f0.0.17v1.8.0rc-latest-276-g29be1da7"]
)
def test_before_1_9_a_sampler_without_a_schedule_is_uniform(version: str) -> None:
    assert found("DPM++ 2M", None, version) == ("dpmpp_2m", "normal")
    assert found("DPM++ SDE", "Automatic", version) == ("dpmpp_sde", "linspace")
    assert found("DPM++ 2M Karras", None, version) == ("dpmpp_2m", "karras")
    assert found("DPM++ 2M", "karras", version) == ("dpmpp_2m", "karras")
    assert found("DDIM", None, version) == ("ddim", "leading")


@pytest.mark.parametrize(
    ("sampler", "schedule_type", "expected"),
    [
        ("DPM++ 2M Karras", "Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", "Exponential", ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", None, ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", "Automatic", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE Heun Karras", None, ("dpmpp_2m_sde_heun", "karras")),
        ("DPM++ 2S a Karras", None, ("dpmpp_2s_a", "karras")),
        ("Euler a", "Uniform", ("euler_a", "linspace")),
        ("euler A", " uniform ", ("euler_a", "linspace")),
        ("DPM++ 2M", "Uniform", ("dpmpp_2m", "normal")),
        ("DPM++ 2M", "Normal", ("dpmpp_2m", "normal")),
        ("DPM++ 2M", "SGMUniform", ("dpmpp_2m", "sgm_uniform")),
        ("DPM++ 2M SGMUniform", None, ("dpmpp_2m", "sgm_uniform")),
        ("Euler", "Align Your Steps 11", ("euler", "align_your_steps")),
        ("Euler", "Align Your Steps", ("euler", "align_your_steps")),
        ("Euler", "DDIM", ("euler", "ddim_uniform")),
        ("DDIM", "Karras", ("ddim", "leading")),
        ("PLMS", "Simple", ("pndm", "leading")),
        ("UniPC", "Karras", ("unipc", "linspace")),
        ("k_euler_a", None, ("euler_a", "linspace")),
        ("k_dpmpp_2m_ka", None, ("dpmpp_2m", "karras")),
        (None, "Karras", ("dpmpp_2m", "karras")),
    ],
)
def test_a_schedule_may_be_said_in_either_place_or_in_both(
    sampler: str | None, schedule_type: str | None, expected: tuple[str, str]
) -> None:
    assert found(sampler, schedule_type, "v1.10.1") == expected


@pytest.mark.parametrize("sampler", OWN_LEVELS)
def test_samplers_with_their_own_levels(sampler: str) -> None:
    assert found(sampler, "Automatic", "v1.10.1")[0] == OWN_LEVELS[sampler]
    assert found(sampler, None, None)[0] == OWN_LEVELS[sampler]


def test_a_schedule_that_would_change_the_image_is_not_dropped() -> None:
    with pytest.raises(
        RequestError, match="'LCM' has its own noise levels, and the image was made with others"
    ):
        scheduler_of_a1111("LCM", "Karras", "v1.10.1")
    with pytest.raises(RequestError, match="own noise levels"):
        scheduler_of_comfyui("lcm", "sgm_uniform")
    # A1111's DPM fast does not look at it.
    assert scheduler_of_a1111("DPM fast", "Karras", "v1.10.1") == "DPM fast"


@pytest.mark.parametrize("sampler", [None, "Default", "default"])
def test_no_sampler_is_the_model_s_own(sampler: str | None) -> None:
    assert scheduler_of_a1111(sampler) is None


@pytest.mark.parametrize("name", ["Undefined", "../scheduler.json", "/etc/passwd", "Euler x", "x" * 10_000])
def test_an_unknown_sampler_is_an_error_and_never_a_path(name: str) -> None:
    with pytest.raises(RequestError, match="unknown scheduler") as error:
        scheduler_of_a1111(name, "Karras")
    assert len(str(error.value)) < 800
    with pytest.raises(RequestError, match="unknown scheduler"):
        scheduler_of_comfyui(name, "karras")


def test_an_unknown_schedule_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(
        RequestError, match=r"schedule type 'Laplace' is unknown: expected one of Automatic, Uniform,"
    ):
        scheduler_of_a1111("Euler", "Laplace")
    with pytest.raises(RequestError, match="scheduler 'laplace' of ComfyUI is unknown"):
        scheduler_of_comfyui("euler", "laplace")


@pytest.mark.parametrize(
    ("sampler_name", "scheduler", "expected"),
    [
        ("euler", "normal", ("euler", "normal")),
        ("euler_ancestral", "simple", ("euler_a", "simple")),
        ("dpmpp_2m", "karras", ("dpmpp_2m", "karras")),
        ("dpmpp_2m_sde_gpu", "exponential", ("dpmpp_2m_sde", "exponential")),
        ("dpmpp_2m_sde_heun", "karras", ("dpmpp_2m_sde_heun", "karras")),
        ("dpmpp_3m_sde_gpu", "kl_optimal", ("dpmpp_3m_sde", "kl_optimal")),
        ("dpmpp_2s_ancestral", "ddim_uniform", ("dpmpp_2s_a", "ddim_uniform")),
        ("dpm_2_ancestral", "linear_quadratic", ("dpm2_a", "linear_quadratic")),
        ("dpm_2", "sgm_uniform", ("dpm2", "sgm_uniform")),
        ("heun", "beta", ("heun", "beta_timesteps")),
        ("lms", "normal", ("lms", "normal")),
        ("uni_pc", "normal", ("unipc", "normal")),
        ("uni_pc_bh2", "simple", ("unipc", "simple")),
        ("ddim", "ddim_uniform", ("euler", "ddim_uniform")),
        ("ddim", "karras", ("euler", "karras")),
        ("ipndm", "normal", ("ipndm", "normal")),
        ("deis", "beta", ("deis", "beta_timesteps")),
    ],
)
def test_comfyui(sampler_name: str, scheduler: str, expected: tuple[str, str]) -> None:
    made = resolve_scheduler(scheduler_of_comfyui(sampler_name, scheduler), CONFIG)
    assert (made.name, made.spacing) == expected


ON_BETAS = [name for name, row in SAMPLERS.items() if not (row.is_for_edm or row.is_for_flow)]


@pytest.mark.parametrize(
    ("name", "spacing"), [(name, spacing) for name in ON_BETAS for spacing in SAMPLERS[name].spacings]
)
def test_what_we_write_is_what_a1111_reads(name: str, spacing: str) -> None:
    """A1111 takes a sampler's default where a text has no schedule type, and ignores the type for some samplers."""
    row = SAMPLERS[name]
    scheduler = resolve_scheduler(name, CONFIG, spacing)
    schedule_type, exact = schedule_type_of(scheduler)
    if "karras" not in row.spacings:
        assert schedule_type is None
        return
    assert schedule_type is not None
    assert schedule_type != "Automatic"
    read = resolve_scheduler(scheduler_of_a1111(row.display_name, schedule_type, "sdrt 9.0"), CONFIG)
    assert read.name == name
    assert (read.spacing == spacing) == exact
    # The nearest levels begin and end about where ours do.
    ours, theirs = scheduler.plan(20).sigmas, read.plan(20).sigmas
    assert abs(ours[0] / theirs[0] - 1) < 0.4
    assert ours[-1] == theirs[-1]


def test_our_own_metadata_without_a_type_keep_the_model_s_spacing() -> None:
    assert scheduler_of_a1111("DPM++ 2M", None, "sdrt 0.1.0") == "DPM++ 2M"
    assert scheduler_of_a1111("DPM++ 2M Karras", None, "sdrt 0.1.0") == "DPM++ 2M Karras"
    assert scheduler_of_a1111("UniPC", "Karras", "sdrt 0.1.0") == "UniPC Karras"
