"""The settings of ControlNets, which let a second image guide the model (Zhang et al. 2023, arXiv:2302.05543)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdrt.request.setting import Group, Label, Option, setting
from sdrt.request.two_model_settings import TwoModelSettings

__all__ = ["MAX_CONTROLNETS", "PREPROCESSORS", "ControlSettings"]

MAX_CONTROLNETS = 16
"""How many ControlNets a call can use at once."""
PREPROCESSORS = ("none", "canny")
"""What makes the control image of the image that the user gave."""
_EACH = "One number for all ControlNets, or a list with one for each."


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ControlSettings(TwoModelSettings):
    """Further rows of the table of settings, between `TwoModelSettings` and `ImagePromptSettings`."""

    control_image: Any = setting(
        None,
        "Let this image guide the model through its ControlNet: edges, a pose, depths, whatever it was trained on.",
        more="Anything that {image} can be, except latents. With several ControlNets, a list with one for each, or for "
        "each prompt such a list. With one ControlNet, a list has one for each prompt. It is scaled to the size of "
        "the result. In text to image, its size is the default size.",
        kind=str,
        group=Group.CONTROL,
        option=Option(("--control-image",), metavar="FILE", repeats=True),
    )
    control_preprocessor: str = setting(
        "none",
        "How to make the control image: canny finds edges; none takes the image as it is.",
        kind=str,
        choices=PREPROCESSORS,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--control-preprocessor",)),
        label=Label("ControlNet preprocessor"),
    )
    canny_low_threshold: float = setting(
        100.0,
        "With canny, an edge goes on while the image changes by more than this.",
        kind=float,
        bounds=(0.0, 10_000.0),
        keeps_int=True,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--canny-low-threshold",)),
        label=Label("ControlNet threshold A"),
    )
    canny_high_threshold: float = setting(
        200.0,
        "With canny, an edge begins where the image changes by more than this.",
        kind=float,
        bounds=(0.0, 10_000.0),
        keeps_int=True,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--canny-high-threshold",)),
        label=Label("ControlNet threshold B"),
    )
    controlnet_conditioning_scale: float | Sequence[float] | None = setting(
        None,
        "How much the ControlNet guides the model.",
        more=_EACH,
        usual="diffusers': 1; 0.8 with an image; with a mask 0.5, or 1 for SDXL",
        kind=float,
        bounds=(-100.0, 100.0),
        max_items=MAX_CONTROLNETS,
        takes_one=True,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--control-scale", "--controlnet-conditioning-scale"), key="control_scale"),
        label=Label("ControlNet weight"),
    )
    control_guidance_start: float | Sequence[float] | None = setting(
        None,
        "The share of the steps, from 0 to 1, before which the ControlNet does nothing.",
        more=_EACH,
        usual="0",
        kind=float,
        bounds=(0.0, 1.0),
        max_items=MAX_CONTROLNETS,
        takes_one=True,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--control-start", "--control-guidance-start"), key="control_start"),
        label=Label("ControlNet guidance start"),
    )
    control_guidance_end: float | Sequence[float] | None = setting(
        None,
        "The share of the steps, from 0 to 1, after which the ControlNet does nothing.",
        more=_EACH,
        usual="1",
        kind=float,
        bounds=(0.0, 1.0),
        max_items=MAX_CONTROLNETS,
        takes_one=True,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--control-end", "--control-guidance-end"), key="control_end"),
        label=Label("ControlNet guidance end"),
    )
    guess_mode: bool = setting(
        False,
        "Let the ControlNet guide only the half with the prompt, and its coarse layers more than its fine ones.",
        more="It makes sense of the control image without a prompt too. A guidance scale of 3 to 5 is recommended.",
        kind=bool,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--guess-mode",)),
        label=Label("ControlNet guess mode"),
    )
