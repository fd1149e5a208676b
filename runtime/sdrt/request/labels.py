"""Convert settings to the labelled texts of A1111's metadata, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.request.pairs import Corner, Size
from sdrt.request.setting import Kind, Setting
from sdrt.request.table import TABLE, labelled_settings

__all__ = ["scheduler_name", "settings_text", "settings_values"]


def settings_text(values: Mapping[str, Any], table: Sequence[Setting] = TABLE) -> dict[str, str]:
    """Convert settings to labelled texts, in A1111's order. Keys of `values` are setting names. None is left out.

    `values` may contain `strength` or `hires_strength`, which have the same label, but not both. `hires_strength` needs
    a `hires_scale`.
    """
    given = [(row, values.get(row.name)) for row in labelled_settings(table)]
    return {row.label.name: _text(row, value) for row, value in given if row.label and value is not None}


def settings_values(texts: Mapping[str, str], table: Sequence[Setting] = TABLE) -> dict[str, Any]:
    """Convert labelled texts to settings. This is the inverse of `settings_text`.

    Unknown labels are ignored. A1111's "Schedule type" becomes a part of the scheduler's name.
    `sdrt.request.translation` makes these texts of another program's.

    Raises:
        RequestError: a text does not fit its label. The message contains both.
    """
    rows = [(row, row.label.name) for row in labelled_settings(table) if row.label]
    values = {row.name: _value(row, texts[label]) for row, label in rows if label in texts}
    values.pop("strength" if "hires_scale" in values else "hires_strength", None)
    schedule_type = values.pop("schedule_type", None)
    if schedule_type is not None and "spacing" not in values:
        # Beside a spacing, the type is only the nearest that A1111 has.
        values["scheduler"] = scheduler_name(values.get("scheduler", ""), schedule_type)
    return values


def scheduler_name(sampler: str, schedule_type: str | None) -> str:
    """Join A1111's name of a sampler and its schedule type to one name.

    Before version 1.9, a sampler's name ended in its schedule. If a text has both, the one in the name counts, as in
    A1111.
    """
    from sdrt.schedulers import split_name

    if schedule_type in (None, "", "Automatic") or split_name(sampler)[1] is not None:
        return sampler
    return f"{sampler} {schedule_type}"


def _text(row: Setting, value: Any) -> str:
    if row.label is not None and row.label.write is not None:
        return row.label.write(value)
    is_one = row.max_items is None or isinstance(value, str)
    return str(value) if is_one else ",".join(map(str, value))


def _value(row: Setting, text: str) -> Any:
    assert row.label is not None  # `labelled_settings` returns only settings with a label
    try:
        if row.label.read is not None:
            return row.label.read(text)
        read, _ = _READERS[row.kind or str]
        return read(text) if row.max_items is None else tuple(read(part) for part in text.split(","))
    except (ValueError, OverflowError):
        expected = row.label.expected or _READERS[row.kind or str][1]
        raise RequestError.expected(
            f"its {row.label.name} is {brief(text)}", expected, argument=row.name
        ) from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _switch(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


_READERS: Mapping[Kind, tuple[Callable[[str], Any], str]] = {
    str: (str, "a string"),
    int: (int, "a whole number"),
    float: (_finite, "a number"),
    bool: (_switch, "True or False"),
    Size: (Size, "a size such as 1024x1024"),
    Corner: (Corner, "two whole numbers such as 0,0"),
}
