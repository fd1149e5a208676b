"""The names of images in the folder."""

from __future__ import annotations

import string
from pathlib import Path
from re import fullmatch

from sdrt.batch.row import Row
from sdrt.errors import RequestError
from sdrt.images.files import format_of

__all__ = ["DEFAULT_PATTERN", "check_pattern", "name_of"]

DEFAULT_PATTERN = "{row:06}-{seed}.png"
_FIELDS = ("row", "seed")


def check_pattern(pattern: str) -> None:
    """Check a pattern of names, which differ because each has its row's number.

    Raises:
        RequestError: it names a folder, has an unknown field, lacks {row}, or has an unknown extension.
    """
    expected = "a file name with {row}, such as {row:06}-{seed}.png, and no other fields"
    try:
        fields = [one for one in string.Formatter().parse(pattern) if one[1] is not None]
    except ValueError:
        fields = []
    if not any(name == "row" for _, name, _, _ in fields) or any(
        name not in _FIELDS or conversion or not fullmatch(r"(0?[1-9]\d?)?", spec or "")
        for _, name, spec, conversion in fields
    ):
        raise RequestError.expected(f"name is {pattern!r}", expected, argument="name")
    name = pattern.format(row=0, seed=0)
    if name != Path(name).name or "\\" in name or "\0" in name or name.startswith("."):
        raise RequestError.expected(f"name is {pattern!r}", expected, argument="name")
    format_of(Path(name))


def name_of(pattern: str, row: Row) -> str:
    """The name of a row's image. No text of the row is in it."""
    return pattern.format(row=row.number, seed=row.seed)
