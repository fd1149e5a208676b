"""Settings that differ between the images of one command: prompts files, and the axes of plots."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdrt.cli.generate.lines import NO_LINE, Line
from sdrt.cli.generate.ranges import in_range
from sdrt.cli.process import standard_input
from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.foreign.command import OPTIONS
from sdrt.foreign.word import find
from sdrt.request.pairs import Corner, Pair, Size
from sdrt.request.setting import Kind, Setting
from sdrt.request.table import TABLE

__all__ = [
    "Axis",
    "Entry",
    "axis_settings",
    "entry_of",
    "image_settings",
    "is_object",
    "object_of",
    "parse_axis",
    "read_prompts_file",
]

MAX_ENTRIES = 10_000
_LONGEST = 64
"""How many characters of a name are compared with the known names."""
_MAX_BYTES = 64 << 20
_EXPECTED: Mapping[Kind, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Size: "a text such as 1024x1024, or [height, width]",
    Corner: "a text such as 0,0, or [top, left]",
}
_PLURAL: Mapping[Kind, str] = {
    str: "strings",
    int: "whole numbers",
    float: "numbers",
    Size: "sizes such as 1024x1024",
    Corner: 'pairs in quotes such as "0,0"',
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A prompt with its own settings, which override those of the command line."""

    prompt: str
    settings: Mapping[str, Any]
    """Keys are the names in the table of settings."""
    line: Line = NO_LINE
    """The line that it comes from."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A setting that a plot varies, and its values."""

    name: str
    """The name of the setting in the table."""
    key: str
    """The name of the setting in commands and prompts files."""
    values: Sequence[Any]

    def label(self, value: Any) -> str:
        """The text under an image that was made with `value`."""
        if isinstance(value, tuple):
            return ", ".join(value)
        if isinstance(value, dict):
            value = json.dumps(value)
            return f"{self.key.replace('_', ' ')} {value}"
        return str(value) if isinstance(value, str) else f"{self.key.replace('_', ' ')} {value}"


def image_settings(table: Sequence[Setting] = TABLE) -> list[Setting]:
    """The settings that may differ from image to image. A line of a prompts file may contain all of them."""
    return [row for row in table if row.option is not None]


def axis_settings(table: Sequence[Setting] = TABLE) -> list[Setting]:
    """The settings that a plot can vary: those whose value is, or may be, one text or one number."""
    rows = [row for row in image_settings(table) if row.kind is not bool]
    return [row for row in rows if row.max_items is None or row.takes_one]


def _find(name: str, rows: Sequence[Setting], location: str) -> Setting:
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    for row in rows:
        if key in row.names:
            return row
    expected = ", ".join(row.key for row in rows)
    close = _meant(key, rows)
    raise RequestError.expected(
        f"{location}: unknown setting {brief(name)}" + (f" (did you mean {close}?)" if close else ""),
        f"one of {expected}",
        argument=name,
    )


def _meant(key: str, rows: Sequence[Setting]) -> str | None:
    """The setting that other programs call `key`, or the one that it is a misspelling of."""
    word = find(key.replace("_", "-"), OPTIONS["generate"])
    named = re.search(r"--([a-z-]+)", word.ours) if word else None
    keys = [row.key for row in rows]
    if named and (ours := named[1].replace("-", "_")) in keys:
        return ours
    return next(iter(difflib.get_close_matches(key[:_LONGEST], keys, n=1)), None)


def read_prompts_file(
    name: str, *, option: str = "--prompts-file", table: Sequence[Setting] = TABLE
) -> list[Entry]:
    """Read a prompts file, or stdin if `name` is "-".

    Each line is a prompt, or a JSON object with a prompt and settings. Empty lines and lines that begin with # are
    ignored. `option` is the command's option for the file, which messages name.

    Raises:
        RequestError: the file cannot be read, contains no prompt or more than `MAX_ENTRIES`, or a line is not
            acceptable. The message names the line.
    """
    shown = "standard input" if name == "-" else name
    facts: dict[str, Any] = {"argument": option, "path": None if name == "-" else Path(name)}
    entries: list[Entry] = []
    for number, line in enumerate(_read(name, f"{option} {shown}", facts).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        location = f"{shown}, line {number}"
        entries.append(_entry_of_line(text, image_settings(table), location, facts))
        if len(entries) > MAX_ENTRIES:
            raise RequestError.advised(
                f"{location}: more than {MAX_ENTRIES} prompts", "split the file", joint="; ", **facts
            )
    if not entries:
        raise RequestError.expected(f"{shown} contains no prompts", "one per line", **facts)
    return entries


def _read(name: str, shown: str, facts: Mapping[str, Any]) -> str:
    try:
        if name == "-":
            data = standard_input().read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise RequestError.expected(
                f"{shown} has more than {_MAX_BYTES >> 20} MB",
                "a text file with a prompt per line; split the file",
                **facts,
            )
        return data.decode("utf-8-sig")
    except RequestError:  # it is a ValueError too
        raise
    except OSError as error:
        raise RequestError(
            f"{shown} cannot be read: {error.strerror or error}",
            **facts,
            fits="a text file that can be read",
        ) from error
    except ValueError as error:
        raise RequestError(f"{shown} is not UTF-8 text: {error}", **facts, fits="UTF-8 text") from error


def _entry_of_line(text: str, rows: Sequence[Setting], location: str, facts: Mapping[str, Any]) -> Entry:
    """A line of a prompts file: a prompt, or a JSON object. Raises `RequestError` as `entry_of` does."""
    if is_object(text):
        return entry_of(object_of(text, location, facts), rows, location, facts)
    return Entry(prompt=text, settings={}, line=Line(location=location))


def is_object(line: str) -> bool:
    """Whether a line is a JSON object, rather than a prompt that begins with a wildcard."""
    return line.startswith("{") and line[1:].lstrip().startswith(('"', "}"))


def object_of(line: str, location: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object in a line. Raises `RequestError` if it is something else, or has a key twice."""
    try:
        given = json.loads(line, object_pairs_hook=partial(_once, location))
    except RequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"{location}: not valid JSON: {error}",
            fits="a prompt, or a JSON object with a prompt and settings",
            **facts,
        ) from error
    if not isinstance(given, dict):
        raise RequestError.expected(location, "a JSON object with a prompt and settings", **facts)
    return given


def entry_of(
    given: Mapping[str, Any], rows: Sequence[Setting], location: str, facts: Mapping[str, Any]
) -> Entry:
    """The prompt and the settings in a mapping, such as the JSON object of a line.

    Raises:
        RequestError: a setting is unknown, given twice or of a wrong type, or there is no prompt.
    """
    settings: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for name, value in given.items():
        row = _find(name, rows, location)
        if row.name in settings:
            raise RequestError(
                f"{location}: {row.key} is given twice", argument=row.name, fits="each setting once"
            )
        settings[row.name] = _checked(row, value, location)
        keys[row.name] = row.key
    prompt = settings.pop("prompt", None)
    if prompt is None:
        raise RequestError.expected(location, "a prompt", **facts)
    return Entry(prompt=prompt, settings=settings, line=Line(location=location, keys=keys))


def _once(location: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `RequestError` for a key that it has twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RequestError(f"{location}: {key} is given twice", argument=key, fits="each setting once")
        found[key] = value
    return found


def _checked(row: Setting, value: object, location: str) -> Any:
    kind = row.kind or str
    repeats = row.option is not None and row.option.repeats
    if repeats and isinstance(value, str):
        value = [value]
    if repeats or (row.max_items is not None and not (row.takes_one and _has_kind(value, kind))):
        if row.reads and isinstance(value, dict):
            value = [value]
        takes_dicts = row.reads is not None
        if not isinstance(value, list) or not all(
            _has_kind(item, kind) or (takes_dicts and isinstance(item, dict)) for item in value
        ):
            raise RequestError.expected(
                f"{location}: {row.key} is {brief(value)}", f"a list of {_PLURAL[kind]}", argument=row.name
            )
        return tuple(value)
    if issubclass(kind, Pair):
        return _pair(row, value, kind, location)
    if not _has_kind(value, kind):
        raise RequestError.expected(
            f"{location}: {row.key} is {brief(value)}", _EXPECTED[kind], argument=row.name
        )
    return value


def _pair(row: Setting, value: object, kind: type[Pair], location: str) -> Pair:
    try:
        if isinstance(value, (str, list)):
            return kind(value)
        raise ValueError(value)
    except ValueError:
        raise RequestError.expected(
            f"{location}: {row.key} is {brief(value)}", kind.expected(), argument=row.name
        ) from None


def _has_kind(value: object, kind: Kind) -> bool:
    """Whether a JSON value is of this kind. A whole number also counts as a number."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def parse_axis(text: str, table: Sequence[Setting] = TABLE) -> Axis:
    """Parse an axis such as `steps=5,10,20`. A value that contains a comma must be in quotes.

    A value of a setting of numbers may be a range, such as `10-30:5`; `ranges` says which there are.

    Raises:
        RequestError: the setting is unknown, or a value is not acceptable.
    """
    name, equals, rest = text.partition("=")
    location = f"axis {brief(text)}"
    if not equals:
        raise RequestError.expected(
            location, "a setting and its values, such as steps=5,10,20", argument="axis"
        )
    row = _find(name, axis_settings(table), location)
    kind = row.kind or str
    if row.reads and row.label and row.label.read and "{" in rest:
        return Axis(name=row.name, key=row.key, values=_json_values(rest, row, location))
    try:
        values = next(csv.reader([rest], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise RequestError.advised(
            f"{location}: {error}",
            "put a value that contains a comma in quotes",
            joint="; ",
            argument=row.name,
        ) from error
    if not all(value.strip() or kind is str for value in values) or not values:
        raise RequestError.expected(
            f"{location}: there are no values, or one is empty",
            "values such as steps=5,10,20",
            argument=row.name,
        )
    return Axis(name=row.name, key=row.key, values=_axis_values(values, row, kind, location))


def _json_values(text: str, row: Setting, location: str) -> list[Any]:
    """Numbers and JSON objects, with commas between them."""
    assert row.label is not None
    assert row.label.read is not None
    try:
        return list(row.label.read(f"[{text}]"))
    except RequestError as error:
        raise RequestError(f"{location}: {error}", **vars(error)) from error
    except ValueError:
        fits = 'numbers and JSON, such as ip_scale=0.5,{"up": {"block_0": [0, 1, 0]}}'
        raise RequestError.expected(location, fits, argument=row.name) from None


def _axis_values(values: Sequence[str], row: Setting, kind: Kind, location: str) -> list[Any]:
    found: list[Any] = []
    for value in values:
        text = value.strip()
        found += in_range(text, kind, row.name) or [_axis_value(text, row, kind, location)]
        if len(found) > MAX_ENTRIES:
            raise RequestError.expected(
                f"{location} has more than {MAX_ENTRIES} values", "fewer values", argument=row.name
            )
    return found


def _axis_value(text: str, row: Setting, kind: Kind, location: str) -> Any:
    if row.option is not None and row.option.repeats:
        return (text,) if text else ()
    try:
        return kind(text)
    except ValueError:
        ranges = "" if kind not in (int, float) else ", or ranges such as 10-30:5"
        raise RequestError.expected(location, f"{_PLURAL[kind]}{ranges}", argument=row.name) from None
