"""`Made`: what a program's metadata say; and the conversions of JSON to A1111's texts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Fields", "Made", "Size", "as_text", "load_json", "load_object", "whole"]

Size = tuple[int, int]
_LONGEST_VALUE = 2000
_LONGEST_NUMBER = 40


@dataclass(frozen=True, kw_only=True)
class Made:
    """How an image was made.

    `settings` has A1111's labels, and other names for what A1111 has no label for. `text` is the file's own text.
    """

    program: str
    text: str
    prompt: str = ""
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def load_json(text: str) -> Any:
    """The value of a JSON text, or None. ComfyUI writes NaN, which Python reads."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def load_object(text: str | None) -> dict[str, Any]:
    """The JSON object in a text, empty if there is none."""
    if not text or not text.lstrip().startswith("{"):
        return {}
    value = load_json(text.rstrip("\0"))
    return value if isinstance(value, dict) else {}


def as_text(value: object) -> str:
    """A JSON value as A1111 writes it: whole numbers without a point, true as True, and nothing for null."""
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
    return str(value)


def whole(value: object) -> int | None:
    """A JSON value as a whole number, or None if it is not one."""
    try:
        number = float(str(value)[:_LONGEST_NUMBER])
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and number.is_integer() else None


class Fields:
    """The fields of a program's metadata, taken one by one under A1111's labels. `put_others` adds the rest."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._left = dict(values)
        self.settings: dict[str, str] = {}

    def take(self, name: str) -> Any:
        """Remove a field and return its value; None if there is no such field."""
        return self._left.pop(name, None)

    def text(self, *names: str) -> str:
        """The first of these fields that is a text, or an empty text."""
        found = [self.take(name) for name in names]
        return next((value for value in found if isinstance(value, str)), "")

    def put(self, label: str, value: object) -> None:
        """Add a setting, unless there is no value."""
        if text := as_text(value):
            self.settings[label] = text

    def move(self, name: str, label: str, convert: Callable[[Any], object] = as_text) -> None:
        """Add a field under a label."""
        value = self.take(name)
        if value is not None and value != "":
            self.put(label, convert(value))

    def put_size(self, width: object, height: object) -> None:
        """Add the size in pixels, if both are known."""
        sides = as_text(width), as_text(height)
        if all(side.isdigit() for side in sides):
            self.settings["Size"] = "x".join(sides)

    def drop(self, names: Iterable[str]) -> None:
        """Leave out fields that do not change the image."""
        for name in names:
            self._left.pop(name, None)

    def put_others(self, program: str) -> None:
        """Add every field that was not taken and has a value, under the program's own name for it."""
        for name, value in self._left.items():
            if value not in (None, "", False, 0) and value != [] and value != {}:
                self.put(f"{program} {name}", value)
