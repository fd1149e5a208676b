"""Settings and files that no ControlNet can work with: one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdrt.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from sdrt_export import export_model
from tests.export.control.images import control_image, made

Checkpoint = Callable[[str], Path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"control_image has 1 image, and the model has 2 ControlNets: expected one image for each"),
        ({"control_image": []}, "control_image is an empty list"),
        ({"control_image": "missing.png"}, "control_image 'missing.png' cannot be read"),
        ({"control_image": [[1, 2], [3]]}, "lists of unequal length"),
        (
            {"control_guidance_start": 0.7, "control_guidance_end": 0.3},
            "control_guidance_start is 0.7.*less than control_guidance_end, which is 0.3",
        ),
        ({"control_guidance_end": 1.5}, "control_guidance_end"),
        ({"control_image": [[]]}, "control_image has empty lists: expected one image for each ControlNet"),
        ({"controlnet_conditioning_scale": [1, 2, 3]}, "has 3 numbers for 2 ControlNets"),
        ({"controlnet_conditioning_scale": "much"}, "controlnet_conditioning_scale"),
        ({"guess_mode": True, "control_mode": "prompt"}, "at most one of guess_mode and control_mode"),
        ({"control_mode": "both"}, "control_mode is 'both': expected one of balanced, prompt, control"),
        ({"control_mode": 3}, "control_mode is 3: expected one of balanced, prompt, control"),
        ({"control_mode": []}, "control_mode"),
        (
            {"control_mode": ["prompt"] * 3, "control_image": [control_image()] * 2},
            "has 3 names for 2 ControlNets: expected one, or one for each",
        ),
        ({"control_image": None, "guess_mode": True}, "guess_mode has no effect without control_image"),
        (
            {
                "scheduler": "dpm_adaptive",
                "control_guidance_end": 0.5,
                "control_image": [control_image()] * 2,
            },
            "this scheduler chooses its steps",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_bad_settings_are_one_line(
    options: dict[str, Any], message: str, plain: Path, controlnets: list[Path]
) -> None:
    two = [control_image()] * 2 if any("scale" in name for name in options) else control_image()
    with pytest.raises(RequestError, match=message) as error:
        made(plain, controlnets, **{"control_image": two, **options})
    assert "\n" not in str(error.value)


def test_a_model_without_a_controlnet(plain: Path) -> None:
    with pytest.raises(RequestError, match=r"this model has no ControlNet: add one with controlnet"):
        made(plain, [], control_image=control_image())


def test_a_controlnet_for_another_model(
    checkpoint: Checkpoint, controlnets: list[Path], tmp_path: Path
) -> None:
    message = "is a ControlNet for models with texts of width 32: expected one for .* 48, as sd2"
    with pytest.raises(UnsupportedModelError, match=message):
        export_model(checkpoint("sd2"), tmp_path / "model", controlnet=controlnets)
    assert not (tmp_path / "model").exists()
    with pytest.raises(UnsupportedModelError, match=message):
        made(checkpoint("sd2"), controlnets)


def test_what_no_controlnet_can_be_given_to(
    checkpoint: Checkpoint, controlnets: list[Path], tmp_path: Path
) -> None:
    for options in ({"dtype": "int8"}, {"exporter": "optimum", "target": "portable"}):
        with pytest.raises(RequestError, match=r"^\w+ is '\w+', which makes no graphs for ControlNets"):
            export_model(checkpoint("sd1"), tmp_path / "model", controlnet=controlnets, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError, match="has no config"):
        made(checkpoint("sd1"), [tmp_path])
    with pytest.raises(RequestError, match="controlnet is ''"):
        made(checkpoint("sd1"), [""])  # type: ignore[list-item]
