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


def read(*units: str, **texts: str) -> dict[str, object]:
    texts = {"Steps": "20", **texts, **{f"ControlNet {index}": unit for index, unit in enumerate(units)}}
    found = translate(texts)
    assert not [one.label for one in found.differences if not one.minor]
    values = settings_values(found.texts)
    values.pop("num_inference_steps")
    return values


USUAL = {
    "control_preprocessor": ("none",),
    "control_mode": ("balanced",),
    "controlnet_conditioning_scale": (1.0,),
    "control_guidance_start": (0.0,),
    "control_guidance_end": (1.0,),
}


def test_one() -> None:
    assert read(CANNY) == USUAL | {
        "control_preprocessor": ("canny",),
        "canny_low_threshold": 90.0,
        "canny_high_threshold": 180.0,
        "controlnet_conditioning_scale": (0.8,),
        "control_guidance_start": (0.1,),
        "control_guidance_end": (0.7,),
        "control_mode": ("control",),
    }


def test_several_in_their_order() -> None:
    more = POSE.replace("Weight: 1", "Weight: 0.5").replace("Guidance End: 1.0", "Guidance End: 0.6")
    found = read(POSE, more.replace("Balanced", "My prompt is more important"), CANNY)
    assert found["controlnet_conditioning_scale"] == (1.0, 0.5, 0.8)
    assert found["control_guidance_end"] == (1.0, 0.6, 0.7)
    assert found["control_mode"] == ("balanced", "prompt", "control")
    assert found["control_preprocessor"] == ("none", "none", "canny")


OLD_LABELS = (
    "preprocessor: canny, model: control_v11p_sd15_canny [d14c016b], weight: 0.6, starting/ending: (0.05, 0.9), "
    "resize mode: Just Resize, pixel perfect: True, control mode: Balanced, preprocessor params: (512, 75, 150)"
)
FROM_ITS_API = (
    "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.6, Resize Mode: ResizeMode.RESIZE, "
    "Low Vram: False, Processor Res: 512, Threshold A: 75, Threshold B: 150, Guidance Start: 0.05, "
    "Guidance End: 0.9, Pixel Perfect: True, Control Mode: 0, Hr Option: HiResFixOption.BOTH, "
    "Save Detected Map: True"
)
FLAT = {
    "ControlNet-1 Enabled": "False",
    "ControlNet-1 Module": "depth",
    "ControlNet-0 Model": "control_canny-fp16 [e3fe7712]",
    "ControlNet-0 Module": "canny",
    "ControlNet-0 Weight": "0.6",
    "ControlNet-0 Enabled": "True",
    "ControlNet-0 Guidance End": "0.9",
    "ControlNet-0 Guidance Start": "0.05",
}


@pytest.mark.parametrize(
    ("texts", "thresholds"),
    [
        ({"ControlNet 0": OLD_LABELS}, True),
        # The only unit had no number.
        ({"ControlNet": OLD_LABELS}, True),
        ({"Controlnet 0": OLD_LABELS.replace("pixel perfect", "pixel_perfect")}, True),
        ({"ControlNet 0": FROM_ITS_API}, True),
        ({"ControlNet 2": FROM_ITS_API, "ControlNet 0": "Module: none, Model: None, Weight: 1"}, True),
        (FLAT, False),
        ({label.replace("-0", ""): value for label, value in FLAT.items()}, False),
    ],
    ids=["old labels", "no number", "libs", "API", "an empty unit", "flat", "flat, no number"],
)
def test_what_all_versions_of_the_extension_wrote(texts: dict[str, str], thresholds: bool) -> None:
    wanted = USUAL | {
        "control_preprocessor": ("canny",),
        "controlnet_conditioning_scale": (0.6,),
        "control_guidance_start": (0.05,),
        "control_guidance_end": (0.9,),
    }
    given = {"canny_low_threshold": 75.0, "canny_high_threshold": 150.0} if thresholds else {}
    assert read(**texts) == wanted | given


@pytest.mark.parametrize(
    ("unit", "more", "differences"),
    [
        (POSE, {}, []),
        (POSE.replace("Just Resize", "Crop and Resize"), {}, [("ControlNet's Resize Mode", True)]),
        (CANNY.replace("End: 0.7", "End: 1"), {}, [("ControlNet's Processor Res", True)]),
        (POSE.replace("End: 1.0", "End: 0.5"), {}, [("ControlNet's Guidance End", True)]),
        (POSE.replace("none", "openpose_full"), {}, [("ControlNet's Module", False)]),
        (POSE + ", Hr Option: Low res only", {}, []),
        (POSE + ", Hr Option: 1", {"Hires upscale": "2"}, [("ControlNet's Hr Option", False)]),
        (
            FROM_ITS_API.replace("0.9", "1"),
            {"Hires upscale": "2"},
            [("ControlNet's weights in the second pass", True)],
        ),
        (CANNY, {"Version": "sdrt 0.1"}, []),
    ],
)
def test_what_the_extension_does_in_another_way_is_said(
    unit: str, more: dict[str, str], differences: list[tuple[str, bool]]
) -> None:
    found = translate({"Steps": "20", "ControlNet 0": unit, **more})
    said = [(one.label, one.minor) for one in found.differences if one.label.startswith("ControlNet")]
    assert said == differences
    assert found.controlnets[0].startswith("control_v11p_sd15_")


@pytest.mark.parametrize(
    "units",
    [
        [POSE.replace("none", "reference_only")],
        [POSE.replace("control_v11p_sd15_openpose", "ip-adapter_sd15")],
        [POSE.replace("control_v11p_sd15_openpose", "t2iadapter_style_sd14v1")],
        [POSE.replace("Balanced", "Something new")],
        [POSE + ", Advanced Weighting: [0.1"],
        [POSE + ", Union Control Type: ControlNetUnionControlType.DEPTH"],
        [CANNY, CANNY.replace("90", "91")],
    ],
    ids=[
        "no map",
        "IP-Adapter",
        "T2I-Adapter for style",
        "a mode",
        "weights",
        "Union",
        "different thresholds",
    ],
)
def test_what_sdrt_does_not_have_is_said(units: list[str]) -> None:
    found = translate({f"ControlNet {index}": unit for index, unit in enumerate(units)})
    assert [one.label for one in found.differences] == ["ControlNet"]


def test_t2i_adapters_are_read_like_controlnets() -> None:
    """A1111's extension has one unit for both."""
    found = translate({"ControlNet 0": POSE.replace("control_v11p_sd15_openpose", "t2iadapter_pose_sd14v1")})
    assert (found.controlnets, found.differences) == (["t2iadapter_pose_sd14v1 [cab727d4]"], [])


def test_guess_mode_is_beside_the_units() -> None:
    unit = POSE.replace("Balanced", "ControlNet is more important")
    found = read(unit, **{"ControlNet guess mode": "True", "Version": "sdrt 0.1"})
    assert (found["guess_mode"], "control_mode" in found) == (True, False)
