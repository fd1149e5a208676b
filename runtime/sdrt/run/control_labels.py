"""What an image's metadata say of ControlNets, in the words of A1111's extension (sd-webui-controlnet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdrt.request.control_texts import IMPORTANT
from sdrt.request.request import Request

__all__ = ["control_texts"]


def control_texts(request: Request, names: Sequence[str]) -> Mapping[str, str]:
    """A text for each ControlNet, by its label.

    Args:
        request: the request, completed by `fit`.
        names: the names of the model's ControlNets.
    """
    if request.control_image is None:
        return {}
    found = {}
    for index, name in enumerate(names):
        entries = {
            "Module": request.control_preprocessor,
            "Model": name,
            "Weight": _number(request.controlnet_conditioning_scale, index),
            "Resize Mode": "Just Resize",
            **_thresholds(request),
            "Guidance Start": _number(request.control_guidance_start, index),
            "Guidance End": _number(request.control_guidance_end, index),
            "Control Mode": IMPORTANT[request.guess_mode],
        }
        found[f"ControlNet {index}"] = ", ".join(f"{key}: {value}" for key, value in entries.items())
    return found


def _thresholds(request: Request) -> dict[str, str]:
    if request.control_preprocessor != "canny":
        return {}
    low, high = request.canny_low_threshold, request.canny_high_threshold
    return {"Threshold A": f"{low:g}", "Threshold B": f"{high:g}"}


def _number(values: object, index: int) -> str:
    assert isinstance(values, tuple)  # `fit` has one number for each ControlNet
    return f"{values[index]:g}"
