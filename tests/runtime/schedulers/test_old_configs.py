"""Scheduler configs of early versions of diffusers, with keys that were dropped since."""

from __future__ import annotations

from typing import Any

import pytest

from sdrt.errors import UnsupportedModelError
from sdrt.schedulers import resolve_scheduler

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
# What diffusers' Stable Diffusion pipelines make of each config, whatever it leaves out.
TODAY: dict[str, dict[str, Any]] = {
    "PNDMScheduler": NOISE | {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1},
    "DDIMScheduler": NOISE | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    "LMSDiscreteScheduler": NOISE,
}


@pytest.mark.parametrize("class_name", TODAY)
@pytest.mark.parametrize(
    "old",
    [
        {"tensor_format": "pt"},
        {"tensor_format": "np", "timestep_values": None, "trained_betas": None},
        {"timestep_values": [1, 2, 3], "_diffusers_version": "0.2.4"},
        {"predict_epsilon": True, "_diffusers_version": "0.8.0"},
        {"set_alpha_to_zero": True},
    ],
    ids=str,
)
def test_dropped_keys_change_nothing(class_name: str, old: dict[str, Any]) -> None:
    config = {"_class_name": class_name, **TODAY[class_name]}
    expected = resolve_scheduler(None, config).plan(7)
    found = resolve_scheduler(None, config | old).plan(7)
    assert (found.timesteps, found.sigmas) == (expected.timesteps, expected.sigmas)
    assert found.noise_schedule.prediction_type == "epsilon"


def test_missing_keys_of_the_first_configs() -> None:
    """Those of Stable Diffusion 1.4 when it came out. The pipeline sets the offset and switches clipping off."""
    for name, left_out in (
        ("PNDMScheduler", ("set_alpha_to_one", "steps_offset")),
        ("DDIMScheduler", ("steps_offset",)),
    ):
        config = {"_class_name": name, **TODAY[name]}
        old = {key: value for key, value in config.items() if key not in (*left_out, "clip_sample")}
        expected, found = resolve_scheduler(None, config).plan(7), resolve_scheduler(None, old).plan(7)
        assert (found.timesteps, found.sigmas) == (expected.timesteps, expected.sigmas)


def test_an_old_way_to_say_that_the_image_is_predicted() -> None:
    config = {"_class_name": "DDIMScheduler", **TODAY["DDIMScheduler"], "predict_epsilon": False}
    assert resolve_scheduler(None, config).noise_schedule.prediction_type == "sample"
    both = config | {"prediction_type": "v_prediction"}
    assert resolve_scheduler(None, both).noise_schedule.prediction_type == "v_prediction"
    with pytest.raises(UnsupportedModelError, match="predict_epsilon is 'no'; supported: a key that this"):
        resolve_scheduler(None, config | {"predict_epsilon": "no"})
