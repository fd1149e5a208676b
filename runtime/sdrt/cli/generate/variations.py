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
from sdrt.request.setting import Kind, Setting
from sdrt.request.table import TABLE

__all__ = ["Axis", "Entry", "axes", "expand_wildcards", "keys", "parse_axis", "read_prompts_file"]

MAX_ENTRIES = 10_000
_MOST_BYTES = 64 << 20
_EXPECTED: Mapping[Kind, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
_PLURAL: Mapping[Kind, str] = {str: "texts", int: "whole numbers", float: "numbers"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A prompt, and the settings that it has for itself, by the names of the table."""

    prompt: str
    settings: Mapping[str, Any]
    where: str = ""
    """File and line, for messages."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A field of a plot, and the values that it takes."""

    name: str
    """Of the setting, by the table."""
    key: str
    """As the command calls it."""
    values: Sequence[Any]

    def label(self, value: Any) -> str:
        """What stands under an image for one of them."""
        return str(value) if isinstance(value, str) else f"{self.key.replace('_', ' ')} {value}"


def keys(table: Sequence[Setting] = TABLE) -> list[Setting]:
    """What may differ from image to image: a line of a prompts file may have all of it."""
    return [row for row in table if row.option is not None]


def axes(table: Sequence[Setting] = TABLE) -> list[Setting]:
    """What a plot may be over: one text or number. In a text, a comma is between two values."""
    return [row for row in keys(table) if row.most is None and row.kind is not bool]


def _named(name: str, rows: Sequence[Setting], where: str) -> Setting:
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    for row in rows:
        if key in row.names:
            return row
    expected = ", ".join(row.key for row in rows)
    raise RequestError(f"{where}: unknown field {brief(name)}; expected one of {expected}")


def read_prompts_file(
    name: str, *, option: str = "--prompts-file", table: Sequence[Setting] = TABLE
) -> list[Entry]:
    """A prompt, or a JSON object of settings, from each line of a file, or of stdin where `name` is "-".

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
        plain = Entry(prompt=text, settings={}, where=where)
        entries.append(_entry(text, keys(table), where) if _is_object(text) else plain)
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


def _entry(line: str, rows: Sequence[Setting], where: str) -> Entry:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not JSON: {error}") from error
    settings: dict[str, Any] = {}
    for name, value in given.items():
        row = _named(name, rows, where)
        if row.name in settings:
            raise RequestError(f"{where}: {row.key} is given twice")
        settings[row.name] = _checked(row, value, where)
    prompt = settings.pop("prompt", None)
    if prompt is None:
        raise RequestError(f"{where}: has no prompt")
    return Entry(prompt=prompt, settings=settings, where=where)


def _checked(row: Setting, value: object, where: str) -> Any:
    kind = row.kind or str
    if row.most is not None:
        if not isinstance(value, list) or not all(_is(item, kind) for item in value):
            raise RequestError(f"{where}: {row.key} is {brief(value)}: expected a list of {_PLURAL[kind]}")
        return tuple(value)
    if not _is(value, kind):
        raise RequestError(f"{where}: {row.key} is {brief(value)}: expected {_EXPECTED[kind]}")
    return value


def _is(value: object, kind: Kind) -> bool:
    """Whether a value of JSON is of this kind; a whole number is a number, too."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def parse_axis(text: str, table: Sequence[Setting] = TABLE) -> Axis:
    """The axis of `steps=5,10,20`; a value with a comma stands in quotes.

    Raises:
        RequestError: there is no such field, or a value is not one.
    """
    name, equals, rest = text.partition("=")
    where = f"axis {brief(text)}"
    if not equals:
        raise RequestError(f"{where}: expected a field and its values, such as steps=5,10,20")
    row = _named(name, axes(table), where)
    kind = row.kind or str
    try:
        values = next(csv.reader([rest], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise RequestError(f"{where}: {error}; a value with a comma stands in quotes") from error
    if not all(value.strip() or kind is str for value in values) or not values:
        raise RequestError(f"{where}: has no values, or an empty one")
    try:
        return Axis(name=row.name, key=row.key, values=[kind(value.strip()) for value in values])
    except ValueError:
        raise RequestError(f"{where}: expected {_PLURAL[kind]}") from None


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
