"""Arguments that are written once, as the fields of a dataclass: a function's signature and its documentation."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import Field, field, fields
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["argument", "described", "documented", "takes"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_WIDTH = 100


def argument(default: Any, about: str, *, usual: str = "", **more: Any) -> Any:
    """A field with this default that says what it is for, and what None stands for; `more` goes into its metadata.

    Type checkers read the field's annotation and see that it has a default, so this returns `Any`.
    """
    return field(default=default, metadata={"about": about, "usual": usual, **more})


def takes(arguments: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Give a method the signature of a dataclass, and add to its docstring what every field is for.

    The method itself takes `*values, **named`, and makes the dataclass of them. Type checkers and `inspect.signature`
    see each argument by its name, its type and its default.
    """

    def signed(method: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        own = inspect.signature(method)
        first, signature = next(iter(own.parameters.values())), inspect.signature(arguments)
        method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # functions may have one
            parameters=[first, *signature.parameters.values()], return_annotation=own.return_annotation
        )
        method.__doc__ = _with_arguments(method.__doc__, arguments)
        # Python's own error for an unknown argument names the method that was called.
        arguments.__init__.__qualname__ = method.__qualname__
        return method

    return signed


def described(arguments: C) -> C:
    """Add to a dataclass's docstring what every field is for."""
    arguments.__doc__ = _with_arguments(arguments.__doc__, arguments)
    return arguments


def documented(arguments: Any) -> list[Field[Any]]:
    """The fields of a dataclass that say what they are for, in their metadata."""
    return [one for one in fields(arguments) if one.metadata.get("about")]


def _with_arguments(text: str | None, arguments: Any) -> str:
    """The docstring with a section "Args", before the one that says what is raised."""
    lines = [
        textwrap.fill(
            f"{one.name}: {one.metadata['about']}"
            + (f" None: {usual}." if (usual := one.metadata.get("usual")) else ""),
            _WIDTH,
            initial_indent=" " * 4,
            subsequent_indent=" " * 8,
        )
        for one in documented(arguments)
    ]
    before, raises, after = inspect.cleandoc(text or "").partition("Raises:\n")
    return "\n".join([before.rstrip(), "", "Args:", *lines]) + (f"\n\n{raises}{after}" if raises else "\n")
