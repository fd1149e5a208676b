"""What metadata say of each ControlNet, in the words of all versions of A1111's extension (sd-webui-controlnet).

Since 1.1.200 or so it writes a text for each unit, in quotes: "Module: canny, Model: …". Before that its labels were in
lower case, with both shares of the steps in brackets. Its first versions wrote a label for each value:
"ControlNet-0 Module: canny". Its API writes the members of enums, or their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["Unit", "units_of"]

Unit = Mapping[str, str]
"""What one unit says, by labels in lower case."""
_UNIT = re.compile(r"controlnet(?: (\d{1,2}))?", re.IGNORECASE)
_FLAT = re.compile(
    r"controlnet(?:[ -](\d{1,2}))? "
    r"(enabled|module|preprocessor|model|weight|guidance (?:start|end|strength)|resize mode|low ?vram|processor res|"
    r"threshold [ab]|control mode|pixel perfect)",
    re.IGNORECASE,
)
# Without bounds, the time would grow with the square of a text's length.
_ENTRY = re.compile(r"([A-Za-z][\w /]{0,99}): ?(\([^)]{0,999}\)|[^,]*)(?:, ?|$)")
_OTHER_NAMES = {
    "preprocessor": "module",
    "lowvram": "low vram",
    "guidance strength": "guidance end",
    "guessmode": "guess mode",
}
# The values that the API writes, by their number and by the member of the enum.
_WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "resize mode": (
        ("RESIZE", "Just Resize"),
        ("INNER_FIT", "Crop and Resize"),
        ("OUTER_FIT", "Resize and Fill"),
    ),
    "control mode": (
        ("BALANCED", "Balanced"),
        ("PROMPT", "My prompt is more important"),
        ("CONTROL", "ControlNet is more important"),
    ),
    "hr option": (("BOTH", "Both"), ("LOW_RES_ONLY", "Low res only"), ("HIGH_RES_ONLY", "High res only")),
}


def units_of(texts: Mapping[str, str]) -> tuple[list[Unit], list[str]]:
    """The units that are on, in their order, and the labels of all units in `texts`, also of those that are off."""
    found: dict[int, dict[str, str]] = {}
    labels = []
    for label, value in texts.items():
        if whole := _UNIT.fullmatch(label):
            found.setdefault(int(whole[1] or 0), {}).update(_entries(value))
        elif flat := _FLAT.fullmatch(label):
            found.setdefault(int(flat[1] or 0), {}).update(_entry(flat[2], value))
        else:
            continue
        labels.append(label)
    units = [_in_words(found[number]) for number in sorted(found)]
    return [one for one in units if not _is_off(one)], labels


def _entries(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, value in _ENTRY.findall(text):
        found |= _entry(label, value)
    return found


def _entry(label: str, value: str) -> dict[str, str]:
    """One value, or the several that an older version wrote in brackets."""
    name, value = " ".join(label.replace("_", " ").lower().split()), value.strip()
    parts = [part.strip() for part in value.strip("()").split(",")]
    if name == "starting/ending" and len(parts) == 2:
        return dict(zip(("guidance start", "guidance end"), parts, strict=True))
    if name == "preprocessor params" and len(parts) == 3:
        given = zip(("processor res", "threshold a", "threshold b"), parts, strict=True)
        return {label: part for label, part in given if part not in ("None", "-1")}
    return {_OTHER_NAMES.get(name, name): value}


def _in_words(unit: Mapping[str, str]) -> dict[str, str]:
    """The unit with the words of the extension's window in place of those of its API."""
    found = dict(unit)
    for label, words in _WORDS.items():
        if label not in unit:
            continue
        said = unit[label].rpartition(".")[2]
        known = {str(number): word for number, (_, word) in enumerate(words)} | dict(words)
        found[label] = known.get(said, unit[label])
    return found


def _is_off(unit: Unit) -> bool:
    # Without a preprocessor and a model, there is nothing that could have an effect.
    return unit.get("enabled") == "False" or (
        unit.get("module", "none").lower() == "none" and unit.get("model", "").lower() == "none"
    )
