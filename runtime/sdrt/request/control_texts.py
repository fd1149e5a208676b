"""Reads what metadata say of ControlNets as settings. `control_units` has their words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from sdrt.request.control_modes import BALANCED, CONTROL_MODES
from sdrt.request.control_settings import PREPROCESSORS
from sdrt.request.control_units import Unit, units_of
from sdrt.request.translated import Translation

__all__ = ["CONTROL_LABELS", "UNIT_LABELS", "read_controls"]

_NUMBERS = {
    "weight": ("ControlNet weight", "1"),
    "guidance start": ("ControlNet guidance start", "0"),
    "guidance end": ("ControlNet guidance end", "1"),
}
_THRESHOLDS = {"threshold a": "ControlNet threshold A", "threshold b": "ControlNet threshold B"}
_MODULE, _MODE, _GUESS = "ControlNet preprocessor", "ControlNet control mode", "ControlNet guess mode"
UNIT_LABELS = (*(label for label, _ in _NUMBERS.values()), *_THRESHOLDS.values(), _MODULE, _MODE)
"""The labels of settings that metadata do not contain. They contain a text for each ControlNet instead."""
CONTROL_LABELS = (*UNIT_LABELS, _GUESS)
"""The labels of all settings of ControlNets."""
_MODES = {mode.title: name for name, mode in CONTROL_MODES.items()}
# Modules that do more than make a map, and models that are no ControlNets.
_NO_MAP = re.compile(
    r"reference|revision|clip|style|inpaint|colorfix|ip.?adapter|instant.?id|pulid|face.?id", re.IGNORECASE
)
_NO_NET = re.compile(r"ip.?adapter|style|lllite|instant.?id|pulid|sparse.?ctrl|union", re.IGNORECASE)
# What a unit may say besides, and what it says of nothing.
_NOTHING: Mapping[str, tuple[str, ...]] = {
    "advanced weighting": ("None", ""),
    "union control type": ("Unknown", "ControlNetUnionControlType.UNKNOWN"),
    "effective region mask": ("None", ""),
    "guess mode": ("False",),
}


def read_controls(found: Translation) -> None:
    """Put settings in place of what the metadata say of ControlNets, if sdrt has all that they say."""
    is_ours = found.texts.get("Version", "").startswith("sdrt ")
    units, labels = units_of(found.texts)
    values = _settings(units) if units else None
    if units and values is None:
        return
    for label in labels:
        del found.texts[label]
    if values is None:
        return
    if found.texts.get(_GUESS) == "True":
        # Its mode is the nearest of A1111's.
        del values[_MODE]
    found.texts.update(values)
    found.controlnets.extend(unit.get("model", "") for unit in units)
    if not is_ours:
        for unit in units:
            _note_differences(found, unit)


def _settings(units: Sequence[Unit]) -> dict[str, str] | None:
    """The settings of all ControlNets together. None if sdrt does not have them."""
    if any(_is_other(unit) for unit in units):
        return None
    modes = [_MODES.get(unit.get("control mode", CONTROL_MODES[BALANCED].title)) for unit in units]
    thresholds = [
        {label: unit[name] for name, label in _THRESHOLDS.items() if _is_positive(unit.get(name, ""))}
        for unit in units
        if _module(unit) == "canny"
    ]
    if None in modes or any(one != thresholds[0] for one in thresholds):
        return None
    values = {
        label: ",".join(unit.get(name, usual).strip() for unit in units)
        for name, (label, usual) in _NUMBERS.items()
    }
    modules = [_module(unit) if _module(unit) in PREPROCESSORS else PREPROCESSORS[0] for unit in units]
    named = {_MODULE: _joined(modules), _MODE: _joined([str(mode) for mode in modes])}
    return {**values, **(thresholds[0] if thresholds else {}), **named}


def _is_other(unit: Unit) -> bool:
    """Whether a unit is no ControlNet, or does something with it that sdrt cannot do."""
    if not unit or _NO_MAP.search(_module(unit)) or _NO_NET.search(unit.get("model", "")):
        return True
    return any(unit.get(label, same[0]) not in same for label, same in _NOTHING.items())


def _module(unit: Unit) -> str:
    return unit.get("module", "none").casefold()


def _is_positive(text: str) -> bool:
    with suppress(ValueError):
        return float(text) >= 0
    return bool(text)


def _joined(names: Sequence[str]) -> str:
    """The names of all ControlNets, or the one that all have."""
    return names[0] if len(set(names)) == 1 else ",".join(names)


def _note_differences(found: Translation, unit: Unit) -> None:
    """Note what A1111's extension does in another way."""
    module = _module(unit)
    if module not in PREPROCESSORS:
        # The user may have its map.
        found.differs("ControlNet's Module", unit["module"], "control_preprocessor")
    if unit.get("resize mode", "Just Resize") != "Just Resize":
        # It is the same for a control image with the proportions of the result.
        found.differs("ControlNet's Resize Mode", unit["resize mode"], minor=True)
    if module == "canny" and unit.get("pixel perfect") != "True":
        found.differs("ControlNet's Processor Res", unit.get("processor res", ""), minor=True)
    if _is_positive(end := unit.get("guidance end", "1")) and end not in ("1", "1.0"):
        # It guides one step more.
        found.differs("ControlNet's Guidance End", end, "control_guidance_end", minor=True)
    if "Hires upscale" not in found.texts:
        return
    if (option := unit.get("hr option", "Both")) != "Both":
        found.differs("ControlNet's Hr Option", option)
    if module == "canny" and unit.get("control mode", "Balanced") == "Balanced":
        # The extension weakens the fine layers there.
        found.differs("ControlNet's weights in the second pass", "", minor=True)
