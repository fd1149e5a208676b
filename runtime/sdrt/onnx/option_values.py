"""The kinds of values that options of execution providers take, and how each is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Option",
    "choice_option",
    "device_option",
    "expanded",
    "flag_option",
    "folder_option",
    "number_option",
    "size_option",
]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option that users may set: its effect, its values, and how to read one.

    `read` turns the user's text into ONNX Runtime's, and returns ONNX Runtime's unchanged. It raises `ValueError` for a
    text that is not as `expected`.
    """

    about: str
    expected: str
    read: Callable[[str], str]


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,9})?) ?(?:([KMGT]?)i?B)?", re.IGNORECASE)
_FLAGS = {"1": "True", "true": "True", "on": "True", "0": "False", "false": "False", "off": "False"}


def size_option(about: str) -> Option:
    """An option for a number of bytes, with or without a unit."""
    return Option(about=about, expected="a size above zero, such as 6GB or 512MB", read=_read_size)


def _read_size(text: str) -> str:
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * _UNITS[(found[2] or "").upper()]) if found else 0
    if not 1 <= size < 2**63:
        raise ValueError
    # Digits alone are passed on unchanged, because a float cannot represent every number of bytes.
    return text if text.isdigit() else str(size)


def choice_option(about: str, *values: str) -> Option:
    """An option for one of `values`, in upper or lower case."""
    by_name = {value.lower(): value for value in values}

    def read(text: str) -> str:
        if text.lower() not in by_name:
            raise ValueError
        return by_name[text.lower()]

    return Option(about=about, expected=", ".join(values), read=read)


def flag_option(about: str) -> Option:
    """An option for true or false."""

    def read(text: str) -> str:
        if text.lower() not in _FLAGS:
            raise ValueError
        return _FLAGS[text.lower()]

    return Option(about=about, expected="true or false", read=read)


def number_option(about: str, low: int, high: int) -> Option:
    """An option for a whole number from `low` to `high`."""

    def read(text: str) -> str:
        if not (re.fullmatch(r"-?\d{1,9}", text) and low <= int(text) <= high):
            raise ValueError
        return str(int(text))

    return Option(about=about, expected=f"a whole number from {low} to {high}", read=read)


def folder_option(about: str) -> Option:
    """An option for a folder, which need not exist."""

    def read(text: str) -> str:
        if not text or "\0" in text:
            raise ValueError
        return str(expanded(text).absolute())

    return Option(about=about, expected="a folder", read=read)


def expanded(text: str) -> Path:
    """A path with `~` expanded. Raises `ValueError` if there is no such home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def device_option(about: str) -> Option:
    """An option for one of OpenVINO's devices."""

    def read(text: str) -> str:
        if not re.fullmatch(r"CPU|NPU|GPU(\.\d{1,2})?", text.upper()):
            raise ValueError
        return text.upper()

    return Option(about=about, expected="CPU, GPU, GPU.1 and so on, or NPU", read=read)
