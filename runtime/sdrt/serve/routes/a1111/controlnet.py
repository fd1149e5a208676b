"""`alwayson_scripts`: ControlNet for models that have ControlNets. A1111's other scripts are refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from sdrt.request.control_modes import CONTROL_MODES
from sdrt.request.control_settings import PREPROCESSORS
from sdrt.serve.asked import decoded
from sdrt.serve.errors import ServeError
from sdrt.serve.routes.a1111.fields import Asked, unsupported
from sdrt.serve.routes.a1111.model_facts import ModelFacts
from sdrt.serve.routes.a1111.pictures import as_png, fitted, is_resized, picture

__all__ = ["control_settings", "plain_model"]

_FIELD = "alwayson_scripts.controlnet"
_RESIZE_MODES = ("just resize", "crop and resize", "resize and fill")
_USUAL_THRESHOLDS = (100.0, 200.0)
_MODES = {mode.title.lower(): name for name, mode in CONTROL_MODES.items()} | dict(
    zip(map(str, range(3)), CONTROL_MODES, strict=True)
)


class _WithMask(Asked):
    """An image as older clients send it."""

    image: str | None = None
    mask: str | None = None


class Unit(Asked):
    """A unit of A1111's ControlNet extension."""

    enabled: bool = True
    module: str = "none"
    model: str = "None"
    weight: float = 1.0
    image: str | _WithMask | None = None
    input_image: str | _WithMask | None = None
    resize_mode: int | str = 1
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    control_mode: int | str = 0
    processor_res: int = -1
    threshold_a: float = -1
    threshold_b: float = -1
    pixel_perfect: bool = False
    hr_option: int | str = "Both"
    mask: str | None = None
    mask_image: str | None = None
    effective_region_mask: str | None = None

    low_vram: bool = Field(False, description="Has no effect.")
    lowvram: bool = Field(False, description="Has no effect.")
    use_preview_as_input: bool = False
    save_detected_map: bool = Field(True, description="Has no effect: this server saves and returns none.")
    inpaint_crop_input_image: bool = Field(True, description="Has no effect.")
    is_ui: bool = False
    input_mode: str = "simple"

    @property
    def picture(self) -> str | None:
        """The image as base64."""
        given = self.image or self.input_image
        return given.image if isinstance(given, _WithMask) else given


async def control_settings(
    scripts: Mapping[str, Any],
    facts: ModelFacts,
    *,
    image: bytes | None,
    size: tuple[int, int],
    most_pixels: int,
) -> dict[str, Any]:
    """The settings that scripts mean.

    Args:
        scripts: `alwayson_scripts`.
        facts: what the model has.
        image: the image of image to image, which a unit without an image takes.
        size: the width and height of the result.
        most_pixels: the most pixels of an image.

    Raises:
        ServeError: a script or a value that this server does not have.
    """
    units = [unit for unit in _units(scripts) if unit.enabled]
    if not units:
        return {}
    if not facts.controlnets:
        raise ServeError(400, f"{_FIELD}: the model has no ControlNet", field=_FIELD, code="unsupported")
    placed = _placed(units, facts.controlnets)
    return await asyncio.to_thread(_settings, placed, len(facts.controlnets), image, size, most_pixels)


def _units(scripts: Mapping[str, Any]) -> list[Unit]:
    units: list[Unit] = []
    for name, script in scripts.items():
        if name.lower() != "controlnet":
            field = f"alwayson_scripts.{name[:64]}"
            raise ServeError(422, f"this server has no script {name[:64]!r}", field=field, code="unsupported")
        given = script.get("args") if isinstance(script, dict) else None
        if not isinstance(given, list):
            raise ServeError(422, f"{_FIELD}.args: expected a list of units", field=f"{_FIELD}.args")
        units += [_unit(index, one) for index, one in enumerate(given)]
    return units


def _unit(index: int, given: Any) -> Unit:
    try:
        unit = Unit.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (_FIELD, index, *first["loc"])))[:128]
        message = (
            f"unknown field {place!r}" if first["type"] == "extra_forbidden" else f"{place}: {first['msg']}"
        )
        raise ServeError(422, message, field=place, code=first["type"]) from None
    if unit.enabled:
        _refuse(unit)
    return unit


def _refuse(unit: Unit) -> None:
    """Refuse what would change the image, and what sdrt does not have."""
    if unit.module.lower() not in PREPROCESSORS:
        raise _unknown("module", unit.module, PREPROCESSORS)
    if str(unit.control_mode).lower() not in _MODES:
        raise _unknown("control_mode", unit.control_mode, [mode.title for mode in CONTROL_MODES.values()])
    if _resize_mode(unit) is None:
        raise _unknown("resize_mode", unit.resize_mode, [name.capitalize() for name in _RESIZE_MODES])
    if str(unit.hr_option).lower() not in ("both", "hiresfixoption.both", "0"):
        raise unsupported(f"{_FIELD}.hr_option", unit.hr_option, "Both")
    if unit.input_mode != "simple":
        raise unsupported(f"{_FIELD}.input_mode", unit.input_mode, "simple")
    given = unit.image or unit.input_image
    inner = given.mask if isinstance(given, _WithMask) else None
    for name, mask in (
        ("mask", unit.mask or unit.mask_image or inner),
        ("effective_region_mask", unit.effective_region_mask),
    ):
        if mask:
            raise unsupported(f"{_FIELD}.{name}", "an image", None)


def _unknown(name: str, value: object, known: Sequence[str]) -> ServeError:
    field = f"{_FIELD}.{name}"
    return ServeError(
        400, f"{field} is {value!r:.64}: expected one of {', '.join(known)}", field=field, code="unsupported"
    )


def _resize_mode(unit: Unit) -> int | None:
    """The number of a resize mode. None for one that is unknown."""
    word = str(unit.resize_mode).lower()
    if word in _RESIZE_MODES:
        return _RESIZE_MODES.index(word)
    return int(word) if word in ("0", "1", "2") else None


def plain_model(name: str) -> str:
    """The name of a ControlNet without the hash that A1111 writes after it."""
    return name.partition(" [")[0].strip()


def _placed(units: Sequence[Unit], known: Sequence[str]) -> dict[int, Unit]:
    """The unit of each ControlNet, by its place in the model."""
    placed: dict[int, Unit] = {}
    for unit in units:
        name = plain_model(unit.model)
        if name not in known:
            raise _unknown("model", unit.model, known)
        place = known.index(name)
        if place in placed:
            raise ServeError(
                400, f"{_FIELD}.model: two units take {name!r}", field=f"{_FIELD}.model", code="unsupported"
            )
        placed[place] = unit
    return placed


def _settings(
    placed: Mapping[int, Unit], count: int, image: bytes | None, size: tuple[int, int], most_pixels: int
) -> dict[str, Any]:
    """The settings of all ControlNets. One without a unit gets the first unit's image, and no weight."""
    first = next(iter(placed.values()))
    units = [placed.get(place, first) for place in range(count)]
    low, high = _thresholds([unit for unit in placed.values() if unit.module.lower() == "canny"], size)
    return {
        "control_image": [_picture(unit, image, size, most_pixels) for unit in units],
        "control_preprocessor": [unit.module.lower() for unit in units],
        "controlnet_conditioning_scale": [
            placed[place].weight if place in placed else 0.0 for place in range(count)
        ],
        "control_guidance_start": [unit.guidance_start for unit in units],
        "control_guidance_end": [unit.guidance_end for unit in units],
        "control_mode": [_MODES[str(unit.control_mode).lower()] for unit in units],
        "canny_low_threshold": low,
        "canny_high_threshold": high,
    }


def _thresholds(units: Sequence[Unit], size: tuple[int, int]) -> tuple[float | None, float | None]:
    """The thresholds of canny, which finds edges at the size of the result."""
    if not units:
        return None, None
    for unit in units:
        if not unit.pixel_perfect and unit.processor_res not in (-1, 0, min(size)):
            raise ServeError(
                400,
                f"{_FIELD}.processor_res is {unit.processor_res}: this server finds edges at the size of the image. "
                "Send pixel_perfect true",
                field=f"{_FIELD}.processor_res",
                code="unsupported",
            )
    found = {
        (
            unit.threshold_a if unit.threshold_a >= 0 else _USUAL_THRESHOLDS[0],
            unit.threshold_b if unit.threshold_b >= 0 else _USUAL_THRESHOLDS[1],
        )
        for unit in units
    }
    if len(found) > 1:
        raise ServeError(
            400,
            f"{_FIELD}.threshold_a: units with canny have different thresholds, and this server has one for all",
            field=f"{_FIELD}.threshold_a",
            code="unsupported",
        )
    return found.pop()


def _picture(unit: Unit, image: bytes | None, size: tuple[int, int], most_pixels: int) -> bytes:
    field = f"{_FIELD}.image"
    given = unit.picture
    data = decoded(given, field) if given else image
    if data is None:
        raise ServeError(400, f"{field} is missing: send the image of the unit as base64", field=field)
    mode = _resize_mode(unit) or 0
    if not is_resized(mode):
        return data
    return as_png(fitted(picture(data, field, most_pixels), mode, *size))
