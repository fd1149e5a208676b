"""Option types for comma-separated values, and for amounts of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sdrt.errors import RequestError
from sdrt.request.pairs import Pair

__all__ = ["Choices", "Memory", "Names", "Numbers", "Pairs", "Sizes"]


class Numbers(click.ParamType):  # type: ignore[type-arg]  # only its stubs are generic
    """Comma-separated numbers."""

    name = "numbers"

    def __init__(
        self,
        kind: type[int] | type[float],
        read: Callable[[str], Any] | None = None,
        fits: str | None = None,
    ) -> None:
        """`read` reads texts that contain more than numbers, which `fits` describes. It raises `ValueError`."""
        self._kind, self._read, self._fits = kind, read, fits

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Raises click's own error for text that is not a number."""
        if isinstance(value, tuple):
            return value
        try:
            if self._read is not None:
                return tuple(self._read(value))
            return tuple(self._kind(part) for part in value.split(","))
        except RequestError:
            raise
        except ValueError:
            told = (
                f": expected {self._fits}" if self._fits else " is not a list of numbers such as 999,500,20"
            )
            self.fail(f"{value!r}{told}", param, ctx)


class Names(click.ParamType):  # type: ignore[type-arg]  # only its stubs are generic
    """Comma-separated names."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Raises click's own error for an empty name."""
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in value.split(","))
        if not all(names):
            self.fail(f"{value!r} has an empty name", param, ctx)
        return names


class Choices(click.Choice):  # type: ignore[type-arg]  # only its stubs are generic
    """One of several names, or a comma-separated list of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises click's own error for a name that is not one of them."""
        if isinstance(value, tuple):
            return value
        names = [super(Choices, self).convert(part.strip(), param, ctx) for part in value.split(",")]
        return names[0] if len(names) == 1 else tuple(names)


class Pairs(click.ParamType):  # type: ignore[type-arg]  # only its stubs are generic
    """Two whole numbers, such as a size `1024x768`."""

    name = "pair"

    def __init__(self, kind: type[Pair]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Pair:
        """Raises click's own error for text that is not such a pair."""
        if isinstance(value, Pair):
            return value
        try:
            return self._kind(value)
        except ValueError:
            self.fail(f"{value!r} is not of the form {self._kind.example}", param, ctx)


class Sizes(click.ParamType):  # type: ignore[type-arg]  # generic in its stubs alone
    """Comma-separated sizes in pixels, `A` for a square or `BxC`. The value is a tuple of (width, height)."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        """Raises click's own error for text that is not a size."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(_size(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of sizes such as 512,768x512", param, ctx)


def _size(text: str) -> tuple[int, int]:
    width, times, height = text.lower().partition("x")
    return int(width), int(height if times else width)


class Memory(click.ParamType):  # type: ignore[type-arg]  # only its stubs are generic
    """An amount of memory, such as 6GB or 800MB."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Raises click's own error for another text."""
        if isinstance(value, int):
            return value
        text = value.strip().upper().removesuffix("B")
        unit = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
        try:
            amount = float(text if unit == 1 else text[:-1]) * unit
            if not 0 < amount < 2**60:
                raise ValueError
        except ValueError:
            self.fail(f"{value!r} is not an amount of memory such as 6GB", param, ctx)
        return int(amount)
