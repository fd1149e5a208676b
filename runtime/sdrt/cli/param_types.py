"""Option types for comma-separated values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sdrt.request.pairs import Pair

__all__ = ["Choices", "Names", "Numbers", "Pairs", "Sizes"]


class Numbers(click.ParamType):  # type: ignore[type-arg]  # only its stubs are generic
    """Comma-separated numbers."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], read: Callable[[str], Any] | None = None) -> None:
        """`read` reads texts that contain more than numbers. It raises `ValueError`."""
        self._kind, self._read = kind, read

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
        except ValueError:
            json = ", and no JSON" if self._read is not None else ""
            self.fail(f"{value!r} is not a list of numbers such as 999,500,20{json}", param, ctx)


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
