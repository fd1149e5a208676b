"""What an image's metadata say of ControlNets, in the words of A1111's extension (sd-webui-controlnet)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sdrt.request.control_modes import CONTROL_MODES, GUESS
from sdrt.request.controls import names_of
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
        module = _name(request.control_preprocessor, index)
        mode = GUESS if request.guess_mode else CONTROL_MODES[_name(request.control_mode, index)]
        entries = {
            "Module": module,
            # Both separate the values.
            "Model": re.sub(r"[,:]", "_", name),
            "Weight": _number(request.controlnet_conditioning_scale, index),
            "Resize Mode": "Just Resize",
            **(_thresholds(request) if module == "canny" else {}),
            "Guidance Start": _number(request.control_guidance_start, index),
            "Guidance End": _number(request.control_guidance_end, index),
            # Edges are found in the size that the network sees.
            "Pixel Perfect": str(module != "none"),
            "Control Mode": mode.title,
        }
        found[f"ControlNet {index}"] = ", ".join(f"{key}: {value}" for key, value in entries.items())
    return found


def _thresholds(request: Request) -> dict[str, str]:
    low, high = request.canny_low_threshold, request.canny_high_threshold
    return {"Threshold A": f"{low:g}", "Threshold B": f"{high:g}"}


def _name(values: str | Sequence[str], index: int) -> str:
    names = names_of(values)
    return names[index if len(names) > 1 else 0]


def _number(values: object, index: int) -> str:
    assert isinstance(values, tuple)  # `fit` has one number for each ControlNet
    value = values[index]
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
