"""Settings that differ between the pictures of one command: prompt files, wildcards, lists to plot over."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import RequestError

__all__ = ["FIELDS", "Axis", "Entry", "expand_wildcards", "field_named", "parse_axis", "read_prompts_file"]

MAX_ENTRIES = 10_000
_MOST_BYTES = 64 << 20


FIELDS: Mapping[str, type[str] | type[int] | type[float]] = {
    "prompt": str,
    "negative_prompt": str,
    "seed": int,
    "steps": int,
    "guidance_scale": float,
    "scheduler": str,
    "spacing": str,
    "width": int,
    "height": int,
    "eta": float,
    "clip_skip": int,
    "prompt_syntax": str,
    "image": str,
    "strength": float,
    "mask_image": str,
    "mask_blur": float,
    "padding_mask_crop": int,
    "outpaint": str,
    "image_guidance_scale": float,
    "noise_level": int,
    "guidance_rescale": float,
    "hires_scale": float,
    "hires_strength": float,
    "hires_steps": int,
    "hires_upscaler": str,
    "tile_size": int,
    "tile_overlap": int,
    "max_size": int,
}
"""What may differ from picture to picture, by the names of the options, and how each is read from a text."""

_LISTS: Mapping[str, type[int] | type[float]] = {"timesteps": int, "sigmas": float}
"""More of that, of JSON alone: in a text a comma is between two values."""

_OTHER_NAMES = {
    "num_inference_steps": "steps",
    "cfg_scale": "guidance_scale",
    "sampler": "scheduler",
    "mask": "mask_image",
    "denoising_strength": "strength",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A prompt, and the settings that it has for itself, by the names of `FIELDS`."""

    prompt: str
    settings: Mapping[str, Any]
    where: str = ""
    """File and line, for messages."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A field of a plot, and the values that it takes."""

    field: str
    values: Sequence[Any]

    def label(self, value: Any) -> str:
        """What stands under a picture for one of them."""
        return str(value) if isinstance(value, str) else f"{self.field.replace('_', ' ')} {value}"


def field_named(name: str, where: str) -> str:
    """The key of `FIELDS` that `name` means. Raises `RequestError`."""
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    key = _OTHER_NAMES.get(key, key)
    if key not in FIELDS:
        raise RequestError(f"{where}: unknown field {brief(name)}; expected one of {', '.join(FIELDS)}")
    return key


def read_prompts_file(name: str, *, option: str = "--prompts-file") -> list[Entry]:
    """A prompt, or a JSON object of `FIELDS`, from each line of a file, or of stdin where `name` is "-".

    Empty lines and those that begin with # are left out.

    Raises:
        RequestError: it cannot be read, holds no prompt, or a line is not what it should be; names the line.
    """
    shown = "standard input" if name == "-" else name
    entries: list[Entry] = []
    for number, line in enumerate(_read(name, shown, option).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        where = f"{shown}, line {number}"
        entries.append(
            _entry(text, where) if _is_object(text) else Entry(prompt=text, settings={}, where=where)
        )
        if len(entries) > MAX_ENTRIES:
            raise RequestError(f"{where}: more than {MAX_ENTRIES} prompts: make several files")
    if not entries:
        raise RequestError(f"{shown} has no prompts: expected one a line")
    return entries


def _read(name: str, shown: str, option: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(name).open("rb") as stream:
                data = stream.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise RequestError(
                f"{option} {shown} has more than {_MOST_BYTES >> 20} MB: expected a prompt in each line; make "
                "several files"
            )
        return data.decode("utf-8-sig")
    except OSError as error:
        raise RequestError(f"{option} {shown} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RequestError(f"{option} {shown} is not text in UTF-8: {error}") from error


def _is_object(line: str) -> bool:
    """JSON, and not a prompt that begins with a wildcard."""
    return line.startswith("{") and line[1:].lstrip().startswith(('"', "}"))


def _entry(line: str, where: str) -> Entry:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not JSON: {error}") from error
    settings: dict[str, Any] = {}
    for name, value in given.items():
        key = name if name in _LISTS or name == "composite" else field_named(name, where)
        if key in settings:
            raise RequestError(f"{where}: {key} is given twice")
        settings[key] = _checked(key, value, where)
    prompt = settings.pop("prompt", None)
    if prompt is None:
        raise RequestError(f"{where}: has no prompt")
    if "composite" in settings:
        settings["no_composite"] = not settings.pop("composite")
    return Entry(prompt=prompt, settings=settings, where=where)


def _checked(key: str, value: object, where: str) -> Any:
    if key == "composite":
        if not isinstance(value, bool):
            raise RequestError(f"{where}: composite is {brief(value)}: expected true or false")
        return value
    if key in _LISTS:
        if not isinstance(value, list) or not all(_is_number(item, _LISTS[key]) for item in value):
            expected = "numbers" if _LISTS[key] is float else "whole numbers"
            raise RequestError(f"{where}: {key} is {brief(value)}: expected a list of {expected}")
        return tuple(value)
    kinds = {str: (str,), float: (int, float), int: (int,)}[FIELDS[key]]
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = {str: "a text", float: "a number", int: "a whole number"}[FIELDS[key]]
        raise RequestError(f"{where}: {key} is {brief(value)}: expected {expected}")
    return value


def _is_number(value: object, kind: type[int] | type[float]) -> bool:
    return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)


def parse_axis(text: str) -> Axis:
    """The axis of `steps=5,10,20`; a value with a comma stands in quotes.

    Raises:
        RequestError: there is no such field, or a value is not one.
    """
    name, equals, rest = text.partition("=")
    where = f"axis {brief(text)}"
    if not equals:
        raise RequestError(f"{where}: expected a field and its values, such as steps=5,10,20")
    key = field_named(name, where)
    try:
        values = next(csv.reader([rest], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise RequestError(f"{where}: {error}; a value with a comma stands in quotes") from error
    if not all(value.strip() or FIELDS[key] is str for value in values) or not values:
        raise RequestError(f"{where}: has no values, or an empty one")
    try:
        return Axis(field=key, values=[FIELDS[key](value.strip()) for value in values])
    except ValueError:
        expected = "numbers" if FIELDS[key] is float else "whole numbers"
        raise RequestError(f"{where}: expected {expected}") from None


def expand_wildcards(prompt: str, seed: int) -> str:
    """The prompt with one of the options of each `{a|b}`, innermost first, chosen by the picture's seed.

    Braces without a bar, or without their partner, stay as they are.
    """
    if "{" not in prompt or "|" not in prompt:
        return prompt
    chooser = random.Random(f"wildcards {seed}")
    # Of each open brace: the options read so far, the last of them still growing.
    open_braces: list[list[list[str]]] = [[[]]]
    for character in prompt:
        if character == "{":
            open_braces.append([[]])
        elif character == "|" and len(open_braces) > 1:
            open_braces[-1].append([])
        elif character == "}" and len(open_braces) > 1:
            options = ["".join(option) for option in open_braces.pop()]
            chosen = chooser.choice(options) if len(options) > 1 else f"{{{options[0]}}}"
            open_braces[-1][-1].append(chosen)
        else:
            open_braces[-1][-1].append(character)
    text = "|".join("".join(option) for option in open_braces[0])
    return text + "".join("{" + "|".join("".join(option) for option in brace) for brace in open_braces[1:])
