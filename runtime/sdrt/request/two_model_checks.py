"""The checks of a run that begins or ends within the noise schedule, and of a second model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from sdrt.common.messages import refused, wrong_value
from sdrt.errors import RequestError
from sdrt.request.checks import both_given

if TYPE_CHECKING:
    from sdrt.request.derived import DerivedSettings

__all__ = ["OpenModel", "check_part", "check_refiner", "is_name"]

_ONE_PASS = ("hires_scale", "outpaint")


@runtime_checkable
class OpenModel(Protocol):
    """What a `StableDiffusionPipeline` has, which this package cannot import."""

    @property
    def model(self) -> Any:
        """Its model folder."""

    def plan(self, request: Any) -> Any:
        """Check and plan a request."""


def is_name(refiner: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether `refiner` is the name of a model, and not a pipeline."""
    return isinstance(refiner, (str, os.PathLike))


def check_part(request: DerivedSettings) -> None:
    """Check `denoising_start` and `denoising_end`. Raises `RequestError`.

    diffusers ignores shares that are not between 0 and 1. Here they are errors, except an end of 1.
    """
    start, end = request.denoising_start, request.denoising_end
    if start in (0, 1):
        raise refused("denoising_start", f"is {start:g}", "a number between 0 and 1, or leave it out")
    if end == 0:
        raise refused("denoising_end", "is 0, so no step would run", "a number above 0, up to 1")
    if start is not None and end is not None and start >= end:
        raise refused(
            "denoising_start", f"is {start:g}", f"a smaller share than denoising_end, which is {end:g}"
        )
    for name in ("denoising_start", "denoising_end"):
        for other in _ONE_PASS:
            if getattr(request, name) is not None and getattr(request, other) is not None:
                raise both_given(name, other)


def check_refiner(request: DerivedSettings) -> None:
    """Check the type of `refiner`, and refuse settings that have no effect with it. Raises `RequestError`."""
    refiner = request.refiner
    if refiner is None:
        return
    if not (is_name(refiner) or isinstance(refiner, OpenModel)) or not str(refiner):
        fits = "a model's folder, hub id or name, or a StableDiffusionPipeline"
        raise wrong_value("refiner", refiner, fits)
    if request.hires_refiner != "second" and request.hires_scale is None:
        raise RequestError.advised(
            "hires_refiner has no effect without hires_scale",
            "give hires_scale, or leave out hires_refiner",
            joint="; ",
            argument="hires_refiner",
        )
