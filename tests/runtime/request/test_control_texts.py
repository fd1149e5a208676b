"""What metadata say of ControlNets, in the words of A1111's extension, is read as settings."""

from __future__ import annotations

import pytest

from sdrt.request.labels import settings_values
from sdrt.request.translation import translate

CANNY = (
    "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8, Resize Mode: Just Resize, "
    "Processor Res: 512, Threshold A: 90, Threshold B: 180, Guidance Start: 0.1, Guidance End: 0.7, "
    "Pixel Perfect: False, Control Mode: ControlNet is more important"
)
POSE = (
    "Module: none, Model: control_v11p_sd15_openpose [cab727d4], Weight: 1, Resize Mode: Just Resize, "
    "Guidance Start: 0.0, Guidance End: 1.0, Pixel Perfect: True, Control Mode: Balanced"
)


def read(*units: str) -> dict[str, object]:
    texts = {"Steps": "20", **{f"ControlNet {index}": unit for index, unit in enumerate(units)}}
    found = translate(texts)
    assert not [one.label for one in found.differences if not one.minor]
    values = settings_values(found.texts)
    values.pop("num_inference_steps")
    return values


def test_one() -> None:
    assert read(CANNY) == {
        "control_preprocessor": "canny",
        "canny_low_threshold": 90.0,
        "canny_high_threshold": 180.0,
        "controlnet_conditioning_scale": (0.8,),
        "control_guidance_start": (0.1,),
        "control_guidance_end": (0.7,),
        "guess_mode": True,
    }


def test_several_in_their_order() -> None:
    more = POSE.replace("Weight: 1", "Weight: 0.5").replace("Guidance End: 1.0", "Guidance End: 0.6")
    found = read(POSE, more)
    assert found["controlnet_conditioning_scale"] == (1.0, 0.5)
    assert found["control_guidance_end"] == (1.0, 0.6)
    assert found["guess_mode"] is False


def test_another_resize_mode_is_a_detail() -> None:
    found = translate({"ControlNet 0": POSE.replace("Just Resize", "Crop and Resize")})
    assert [(one.label, one.minor) for one in found.differences] == [("ControlNet's Resize Mode", True)]


@pytest.mark.parametrize(
    "units",
    [
        [POSE.replace("none", "openpose_full")],
        [POSE.replace("Balanced", "My prompt is more important")],
        [CANNY, POSE],
    ],
    ids=["another map", "another mode", "different ones"],
)
def test_what_sdrt_does_not_have_is_said(units: list[str]) -> None:
    found = translate({f"ControlNet {index}": unit for index, unit in enumerate(units)})
    assert [one.label for one in found.differences] == ["ControlNet"]
