"""The settings of ControlNets, which let a second image guide the model (Zhang et al. 2023, arXiv:2302.05543)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdrt.request.control_modes import BALANCED, CONTROL_MODES
from sdrt.request.setting import Group, Label, Option, setting
from sdrt.request.two_model_settings import TwoModelSettings

__all__ = ["MAX_CONTROLNETS", "PREPROCESSORS", "ControlSettings"]

MAX_CONTROLNETS = 16
"""How many ControlNets a call can use at once."""
PREPROCESSORS = ("none", "canny")
"""What makes the control image from the image that the user gave."""
_ONE_NAME = "One name for all ControlNets, or a list with one for each."
_EACH = "One number for all ControlNets, or a list with one for each."


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ControlSettings(TwoModelSettings):
    """Further rows of the table of settings, between `TwoModelSettings` and `ImagePromptSettings`."""

    control_image: Any = setting(
        None,
        "Let this image guide the model through a ControlNet or T2I-Adapter: by edges, a pose, depths or the like.",
        more="Anything that {image} can be, except latents. With one ControlNet, a list has one image for each prompt. "
        "With several, a list has one image for each ControlNet, or one such list for each prompt. sdrt scales the "
        "image to the size of the result. In text to image, the image's size is the default size.",
        kind=str,
        group=Group.CONTROL,
        option=Option(
            ("--control-image",),
            metavar="FILE",
            help="Let this image guide the model through a ControlNet or T2I-Adapter: by edges, a pose, depths or the "
            "like. Repeat the option for several.",
            repeats=True,
        ),
    )
    control_preprocessor: str | Sequence[str] = setting(
        "none",
        "How to make the control image: canny finds edges; none takes the image as it is.",
        more=_ONE_NAME,
        kind=str,
        choices=PREPROCESSORS,
        max_items=MAX_CONTROLNETS,
        takes_one=True,
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
        usual="1; for a ControlNet 0.8 with an image; with a mask 0.5, or 1 for SDXL, as in diffusers",
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
    control_mode: str | Sequence[str] = setting(
        BALANCED,
        "What counts more, as in A1111. balanced: prompt and ControlNet alike. prompt: the ControlNet's fine layers "
        "count less. control: they do too, and the ControlNet does not guide the negative prompt.",
        more=_ONE_NAME,
        kind=str,
        choices=tuple(CONTROL_MODES),
        max_items=MAX_CONTROLNETS,
        takes_one=True,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--control-mode",)),
        label=Label("ControlNet control mode"),
    )
    guess_mode: bool = setting(
        False,
        "diffusers' guess mode: the ControlNet does not guide the negative prompt, and its fine layers count less "
        "than its coarse ones.",
        more="The prompt may then be empty. diffusers recommends a guidance scale from 3 to 5. Not for T2I-Adapters.",
        kind=bool,
        only_with=("control_image",),
        group=Group.CONTROL,
        option=Option(("--guess-mode",)),
        label=Label("ControlNet guess mode"),
    )
