"""Fits the settings of ControlNets to a model: an image, a scale, a start and an end for each of its ControlNets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import refused
from sdrt.errors import RequestError
from sdrt.families import ControlNetSpec, T2IAdapterSpec
from sdrt.images.reading import checked_count, read_images
from sdrt.request.checks import both_given
from sdrt.request.control_modes import BALANCED, CONTROL_MODES, GUESS, ControlMode

if TYPE_CHECKING:
    from sdrt.families import Task
    from sdrt.families.capabilities import Capabilities
    from sdrt.request.derived import DerivedSettings

__all__ = ["Control", "check_controls", "check_shares", "fit_controls", "names_of", "settings_of_controls"]

_NAME = "control_image"
Image8 = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """What one ControlNet or T2I-Adapter of a run does.

    Attributes:
        images: the control image [H, W, 3] of each prompt, in 8 bits.
        scale: how much it guides the model.
        start, end: the shares of the steps between which it does so.
        preprocessor: what makes the images that it sees.
        mode: how it shares the image with the prompt.
        prompt_only: whether it guides only the half with the prompt.
        is_adapter: whether it is a T2I-Adapter.
    """

    images: tuple[Image8, ...]
    scale: float
    start: float
    end: float
    preprocessor: str
    mode: ControlMode
    prompt_only: bool
    is_adapter: bool = False

    @property
    def is_always_on(self) -> bool:
        """Whether it guides every step."""
        return self.start == 0 and self.end == 1

    def scale_at(self, index: int, count: int) -> float:
        """The scale at the evaluation `index` of `count`. The rule is that of diffusers."""
        if self.is_always_on:
            # A scheduler that chooses its steps as it goes may have more than were planned.
            return self.scale
        return 0.0 if index / count < self.start or (index + 1) / count > self.end else self.scale


def check_controls(request: DerivedSettings) -> None:
    """Read the control images of a `request` under construction, and check the settings that go with them.

    Raises:
        RequestError: an image cannot be read, or a setting does not fit another.
    """
    if request.control_image is None:
        return
    if request.guess_mode and request.control_mode != BALANCED:
        raise both_given("guess_mode", "control_mode")
    given = request.control_image
    nested = (
        isinstance(given, (list, tuple))
        and bool(given)
        and all(isinstance(one, (list, tuple)) for one in given)
    )
    if nested and len({len(one) for one in given}) > 1:
        raise refused(_NAME, "has lists of unequal length", "as many images for each prompt")
    # Images of different ControlNets may differ in size. Each is scaled to the size of the result.
    rows = [tuple(_read(one) for one in row) for row in given] if nested else _flat(given)
    object.__setattr__(request, _NAME, tuple(rows))
    for start, end in _pairs(
        _numbers(request.control_guidance_start, [0]), _numbers(request.control_guidance_end, [1])
    ):
        if start >= end:
            raise refused(
                "control_guidance_start", f"is {start:g}", f"less than control_guidance_end, which is {end:g}"
            )


def _read(value: object) -> Image8:
    images = read_images(_NAME, value)
    if len(images) != 1:
        raise refused(_NAME, f"has {len(images)} images for one ControlNet and one prompt", "one")
    return images[0]


def _flat(value: object) -> list[Image8]:
    """One or several images, which may differ in size."""
    if isinstance(value, (list, tuple)):
        return [image for one in value for image in read_images(_NAME, one)] or _none()
    return list(read_images(_NAME, value))


def _none() -> list[Image8]:
    raise refused(_NAME, "is an empty list", "one or several images")


def _numbers(given: float | Sequence[float] | None, usual: Sequence[float]) -> Sequence[float]:
    """A checked setting, which is a tuple, or its default."""
    return usual if given is None or isinstance(given, (int, float)) else given


def _pairs(starts: Sequence[float], ends: Sequence[float]) -> list[tuple[float, float]]:
    count = max(len(starts), len(ends))
    if min(len(starts), len(ends)) not in (1, count):
        raise refused(
            "control_guidance_start",
            f"has {len(starts)} numbers, and control_guidance_end has {len(ends)}",
            "as many, or one of them",
        )
    return list(zip(_each(starts, count), _each(ends, count), strict=True))


def _each(values: Sequence[T], count: int) -> list[T]:
    return list(values) * (count if len(values) == 1 else 1)


def fit_controls(request: DerivedSettings, capabilities: Capabilities) -> tuple[Control, ...]:
    """What each ControlNet and T2I-Adapter of the model does in a request.

    Raises:
        RequestError: the model has none, or the settings do not have one value for each, or are not for all of them.
    """
    if request.control_image is None:
        return ()
    count = len(capabilities.controlnets)
    if not count:
        raise RequestError.advised(
            "control_image has no effect, because this model has no ControlNet",
            "add one with controlnet=… (--controlnet FILE)",
            argument=_NAME,
        )
    images = _of_each_controlnet(request, count)
    adapters = [isinstance(one, T2IAdapterSpec) for one in capabilities.controlnets]
    if request.guess_mode and any(adapters):
        name = capabilities.controlnets[adapters.index(True)].component
        raise refused("guess_mode", f"is given, and {name} is a T2I-Adapter", "control_mode 'control' for it")
    scales, starts, ends = (
        _of_each(name, _numbers(getattr(request, name), usual), count)
        for name, usual in (
            ("controlnet_conditioning_scale", _usual_scales(request, capabilities.task, adapters)),
            ("control_guidance_start", [0.0]),
            ("control_guidance_end", [1.0]),
        )
    )
    preprocessors, modes = (
        _of_each(name, names_of(getattr(request, name)), count)
        for name in ("control_preprocessor", "control_mode")
    )
    # As in diffusers, a first one that pools turns on guess mode, which T2I-Adapters do not have.
    first = capabilities.controlnets[0]
    pools = isinstance(first, ControlNetSpec) and first.pools
    guesses = request.guess_mode or (pools and request.control_mode == BALANCED)
    return tuple(
        Control(
            images=images[index],
            scale=scales[index],
            start=starts[index],
            end=ends[index],
            preprocessor=preprocessors[index],
            mode=(mode := GUESS if guesses and not is_adapter else CONTROL_MODES[modes[index]]),
            prompt_only=mode.prompt_only or (pools and not is_adapter),
            is_adapter=is_adapter,
        )
        for index, is_adapter in enumerate(adapters)
    )


def names_of(given: str | Sequence[str]) -> Sequence[str]:
    """A setting that is one name, or a list with one for each ControlNet."""
    return (given,) if isinstance(given, str) else given


def check_shares(controls: Sequence[Control], *, adaptive: bool) -> None:
    """Refuse shares of the steps for a scheduler that chooses its steps as it goes."""
    if adaptive and any(not one.is_always_on for one in controls):
        raise RequestError.advised(
            "control_guidance_start and control_guidance_end are shares of the steps, and this scheduler chooses its "
            "steps as it goes",
            "leave them out, or use another scheduler",
            argument="control_guidance_end",
        )


def settings_of_controls(controls: Sequence[Control]) -> dict[str, tuple[float, ...]]:
    """The settings that `fit_controls` has completed, by name. Empty without ControlNets."""
    if not controls:
        return {}
    return {
        "controlnet_conditioning_scale": tuple(one.scale for one in controls),
        "control_guidance_start": tuple(one.start for one in controls),
        "control_guidance_end": tuple(one.end for one in controls),
    }


def _usual_scales(request: DerivedSettings, task: Task, adapters: Sequence[bool]) -> list[float]:
    """diffusers' default for a request of this kind, and for T2I-Adapters, which it has for text to image only, 1."""
    repaints = request.mask_image is not None or request.outpaint is not None
    with_image = task.masked_control_scale if repaints else task.control_scale
    return [1.0 if is_adapter or request.image is None else with_image for is_adapter in adapters]


def _of_each_controlnet(request: DerivedSettings, count: int) -> list[tuple[Image8, ...]]:
    """The images of each ControlNet, one for each prompt."""
    given, prompts = request.control_image, request.num_prompts
    if isinstance(given[0], tuple):
        # As in diffusers, the outer list is that of the prompts.
        if len(given[0]) != count:
            raise _other_count(len(given[0]), count)
        return [checked_count(_NAME, column, prompts) for column in zip(*given, strict=True)]
    if count == 1 and (len(given) == 1 or prompts > 1):
        return [checked_count(_NAME, given, prompts)]
    if len(given) != count:
        raise _other_count(len(given), count)
    return [(image,) * prompts for image in given]


def _other_count(found: int, count: int) -> RequestError:
    return refused(
        _NAME,
        f"has {found} image{'s' * (found != 1)}, and the model has {count} ControlNet{'s' * (count != 1)}",
        "one image for each ControlNet",
    )


def _of_each(name: str, values: Sequence[T], count: int) -> list[T]:
    if len(values) not in (1, count):
        kind = "names" if isinstance(values[0], str) else "numbers"
        nets = f"{count} ControlNet{'s' * (count != 1)}"
        raise refused(
            name, f"has {len(values)} {kind} for {nets}", "one, or one for each" if count > 1 else "one"
        )
    return _each(values, count)
