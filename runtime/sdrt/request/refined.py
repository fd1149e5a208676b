"""Fits a request to two models. The second one takes over in the middle of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from sdrt.errors import RequestError
from sdrt.request.fitted import FittedRequest
from sdrt.request.fitting import fit
from sdrt.request.request import Request

if TYPE_CHECKING:
    from sdrt.families.capabilities import Capabilities

__all__ = ["fit_both"]

_OF_THE_RUN = (
    "height",
    "width",
    "guidance_scale",
    "num_inference_steps",
    "timesteps",
    "sigmas",
    "hires_steps",
)


def fit_both(
    request: Request, first: Capabilities, second: Capabilities, name: str, *, is_distilled: bool = False
) -> tuple[FittedRequest, dict[str, Any]]:
    """Fit a request to two models. A setting that only one of them has applies to that one.

    Both use the same size, guidance scale and number of steps. If the request leaves these out, the first model's
    defaults count.

    Args:
        request: the request.
        first: the capabilities of the first model.
        second: those of the second.
        name: the second model's name, for messages.
        is_distilled: see `fit`.

    Returns:
        The request fitted to the first model, and the settings that have other values for the second, by name.

    Raises:
        RequestError: one of the models cannot make the request.
    """
    for_second = {row: getattr(request, row) for row in _refused(first) - _refused(second)}
    fitted = fit(_changed(request, dict.fromkeys(for_second)), first, is_distilled=is_distilled)
    decided = {one: getattr(fitted, one) for one in _OF_THE_RUN}
    if request.outpaint is not None:
        # The size follows from the image.
        decided |= {"height": None, "width": None}
    # ControlNets and IP-Adapters are made for one model.
    made_for_first = (
        {"control_image", "ip_adapter_image", "ip_adapter_image_embeds"} if first is not second else set()
    )
    not_for_second = dict.fromkeys((_refused(second) - _refused(first)) | made_for_first)
    try:
        refined = fit(_changed(request, decided | not_for_second), second, is_distilled=is_distilled)
    except RequestError as error:
        raise RequestError(f"refiner {name}: {error}", **vars(error)) from None
    # The metadata contain the settings of the original request.
    given = {row: value for row, value in for_second.items() if value is not None}
    return replace(fitted, completed=_changed(fitted.completed, given)), _differences(fitted, refined)


def _refused(capabilities: Capabilities) -> set[str]:
    """The settings that a model refuses."""
    return {*capabilities.task.refuses, *capabilities.ignored}


def _changed(request: Request, values: Mapping[str, Any]) -> Request:
    """The request with other values, which are not checked."""
    changed = object.__new__(Request)
    changed.__dict__.update(vars(request) | dict(values))
    return changed


def _differences(first: FittedRequest, second: FittedRequest) -> dict[str, Any]:
    found = {}
    for one in fields(FittedRequest):
        before, after = getattr(first, one.name), getattr(second, one.name)
        of_the_run = one.name in (*_OF_THE_RUN, "strength", "runs_all_steps", "completed")
        # Arrays are the request's own objects, so identity is enough to compare them.
        if not of_the_run and before is not after and not _are_equal(before, after):
            found[one.name] = after
    return found


def _are_equal(before: object, after: object) -> bool:
    return isinstance(before, (str, int, float, tuple)) and before == after
