"""Values in messages, shortened, and the errors about values that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdrt.errors import IntegrityError, ModelError, RequestError

__all__ = ["brief", "naming", "refused", "wrong_key", "wrong_value"]


def brief(value: object, limit: int = 60) -> str:
    """`repr(value)`, cut to `limit` characters. A value without a repr is named by its type."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # Python refuses to write integers of more than 4300 digits.
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= limit else text[:limit] + "…"


def refused(argument: str, problem: str, fits: str) -> RequestError:
    """The error for an argument: "argument problem: expected fits"."""
    return RequestError.expected(f"{argument} {problem}", fits, argument=argument)


def wrong_value(argument: str, value: object, fits: str) -> RequestError:
    """The error for a value that does not fit: "argument is value: expected fits"."""
    return refused(argument, f"is {brief(value)}", fits)


def wrong_key(where: object, key: str, value: object, fits: str, **facts: Any) -> IntegrityError:
    """The error for a key of a config that an export wrote; `where` is the config's file."""
    return IntegrityError(
        f"{where}: {key} is {brief(value)}, expected {fits}: correct it, or export the model again",
        fits=fits,
        **facts,
    )


@contextmanager
def naming(argument: str) -> Iterator[None]:
    """Within this block, every error is about the value of `argument`. Its message begins with the argument's name."""
    try:
        yield
    except (ModelError, RequestError) as error:
        if str(error).startswith(f"{argument} "):
            raise
        raise type(error)(f"{argument}: {error}", **vars(error) | {"argument": argument}) from error
