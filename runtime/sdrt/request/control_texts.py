"""Reads what metadata say of ControlNets, in the words of A1111's extension (sd-webui-controlnet)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sdrt.request.translated import Translation

__all__ = ["CONTROL_LABELS", "IMPORTANT", "read_controls"]

IMPORTANT: Mapping[bool, str] = {False: "Balanced", True: "ControlNet is more important"}
"""The extension's control modes, by `guess_mode`. The second one has the weights of diffusers' guess mode."""
_UNIT = re.compile(r"ControlNet (\d{1,2})")
_ENTRY = re.compile(r"([A-Z][\w ]*): ?([^,]*)(?:, |$)")
_NUMBERS = {
    "Weight": ("ControlNet weight", "1"),
    "Guidance Start": ("ControlNet guidance start", "0"),
    "Guidance End": ("ControlNet guidance end", "1"),
}
_THRESHOLDS = {"Threshold A": "ControlNet threshold A", "Threshold B": "ControlNet threshold B"}
_MODULE, _GUESS = "ControlNet preprocessor", "ControlNet guess mode"
CONTROL_LABELS = (*(label for label, _ in _NUMBERS.values()), *_THRESHOLDS.values(), _MODULE, _GUESS)
"""The labels of the settings. Metadata contain a text for each ControlNet instead."""
_STRETCHED = ("Just Resize", "ResizeMode.RESIZE")


def read_controls(found: Translation) -> None:
    """Put the settings in place of the texts "ControlNet 0", "ControlNet 1", … if sdrt has all that they say."""
    places = {label: int(unit[1]) for label in found.texts if (unit := _UNIT.fullmatch(label))}
    units = [
        dict(_ENTRY.findall(found.texts[label])) for label in sorted(places, key=lambda name: places[name])
    ]
    values = _settings(units) if units else None
    if values is None:
        return
    for label in places:
        del found.texts[label]
    found.texts.update(values)
    modes = {unit.get("Resize Mode", _STRETCHED[0]) for unit in units} - {*_STRETCHED}
    if modes:
        # It is the same for a control image with the proportions of the result.
        found.differs("ControlNet's Resize Mode", modes.pop(), "control_image", minor=True)


def _settings(units: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """The settings of all ControlNets together. None if sdrt does not have them."""
    modules = {unit.get("Module", "none").casefold() for unit in units}
    modes = {unit.get("Control Mode", IMPORTANT[False]) for unit in units}
    if len(modules) > 1 or not modules <= {"none", "canny"} or len(modes) > 1:
        return None
    if not modes <= {*IMPORTANT.values()}:
        return None
    values = {
        label: ",".join(unit.get(name, usual).strip() for unit in units)
        for name, (label, usual) in _NUMBERS.items()
    }
    if modules == {"canny"}:
        values |= {label: units[0][name] for name, label in _THRESHOLDS.items() if name in units[0]}
    return values | {_MODULE: modules.pop(), _GUESS: str(modes == {IMPORTANT[True]})}
