"""Errors that keep nothing in memory but their message and their facts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["forget_locals", "forgets_locals"]

P = ParamSpec("P")
T = TypeVar("T")


def forget_locals(error: BaseException) -> None:
    """Clear the variables of this package's functions in the error's traceback, and in those of its causes.

    A traceback refers to the variables of every function that the error went through, among them the model's sessions.
    Notebooks, loggers and futures keep the last error, and would keep gigabytes with it.
    """
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        errors += [one.__cause__, one.__context__]
        trace = one.__traceback__
        while trace is not None:
            frame, trace = trace.tb_frame, trace.tb_next
            if frame.f_globals.get("__name__", "").partition(".")[0] == "sdrt":
                try:
                    frame.clear()
                except RuntimeError:
                    continue  # it is running: the function that calls this one


def forgets_locals(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator of a function whose errors refer to none of its variables, nor to its arguments."""

    @functools.wraps(function)
    def call(*values: P.args, **named: P.kwargs) -> T:
        try:
            return function(*values, **named)
        except BaseException as error:
            del values, named
            forget_locals(error)
            raise

    return call
