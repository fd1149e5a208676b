"""Settings of two whole numbers: the size of an image, and the top left corner of a crop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, TypeVar

__all__ = ["Corner", "Pair", "Size"]

_MOST = 2**16
P = TypeVar("P", bound="Pair")


class Pair(tuple[int, int]):
    """Two whole numbers in the order of diffusers. As a text, it has the form of options and metadata.

    Raises:
        ValueError: a text is not of this form, or a number is out of bounds.
    """

    pattern: ClassVar[str]
    example: ClassVar[str]
    named: ClassVar[str]
    least: ClassVar[int]

    def __new__(cls: type[P], given: str | Sequence[int]) -> P:
        """Make a pair from a text or from two numbers."""
        numbers = cls._read(given.strip()) if isinstance(given, str) else tuple(given)
        whole = all(isinstance(one, int) and not isinstance(one, bool) for one in numbers)
        if len(numbers) != 2 or not whole or not all(cls.least <= one <= _MOST for one in numbers):
            raise ValueError(given)
        return super().__new__(cls, numbers)

    @classmethod
    def _read(cls, text: str) -> tuple[int, ...]:
        found = re.fullmatch(cls.pattern, text, re.ASCII)
        if found is None:
            raise ValueError(text)
        return int(found[1]), int(found[2])

    @classmethod
    def expected(cls) -> str:
        """The allowed values, in words."""
        return f"{cls.named} from {cls.least} to {_MOST}, or a text such as {cls.example}"


class Size(Pair):
    """Height and width in pixels, in diffusers' order. The text has the width first: 1024x768 is (768, 1024)."""

    pattern = r"(\d{1,6})[x×](\d{1,6})"
    example = "1024x1024"
    named = "(height, width) in pixels"
    least = 1

    @classmethod
    def _read(cls, text: str) -> tuple[int, ...]:
        width, height = super()._read(text.lower())
        return height, width

    def __str__(self) -> str:
        return f"{self[1]}x{self[0]}"


class Corner(Pair):
    """The top and left edge of a crop in pixels, as in diffusers. The text is "top,left"."""

    pattern = r"(\d{1,6})\s*,\s*(\d{1,6})"
    example = "0,0"
    named = "(top, left) in pixels"
    least = 0

    def __str__(self) -> str:
        return f"{self[0]},{self[1]}"
