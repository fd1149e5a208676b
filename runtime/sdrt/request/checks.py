"""Checks of single arguments; each raises `RequestError` that names the argument and what is expected of it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.request.setting import Setting

__all__ = [
    "MAX_PROMPT_LENGTH",
    "as_given",
    "check_shape",
    "check_text",
    "checked",
    "integer",
    "numbers",
    "real",
    "tensor",
]

MAX_PROMPT_LENGTH = 20_000
"""Characters. A model reads some 77 tokens, so this is far beyond use and far below what hurts."""

T = TypeVar("T")
Array = NDArray[np.float32]


def check_text(name: str, value: object) -> None:
    """Refuse what is neither None, nor a text, nor a list of texts that can be encoded."""
    if value is None:
        return
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise _refused(name, f"is {type(value).__name__}", "a text or a non-empty list of texts")
    for text in texts:
        if len(text) > MAX_PROMPT_LENGTH:
            raise _refused(name, f"has {len(text)} characters", f"at most {MAX_PROMPT_LENGTH}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise _refused(name, "holds half a surrogate pair, which is no character", "Unicode text")


def checked(row: Setting, value: Any) -> Any:
    """A value of this setting, as one of Python's own or a NumPy array of float32.

    What depends on other settings or on the model is checked elsewhere.
    """
    if value is None and row.default is None:
        return None
    if row.rank is not None:
        return tensor(row.name, value, rank=row.rank)
    if row.kind is bool and not isinstance(value, bool):
        raise _refused(row.name, f"is {brief(value)}", "True or False")
    if row.choices and not (isinstance(value, str) and value in row.choices):
        raise _refused(row.name, f"is {brief(value)}", f"one of {', '.join(row.choices)}")
    if row.bounds is None:
        return value
    check: Callable[..., Any] = integer if row.kind is int else as_given if row.keeps_int else real
    if row.most is not None:
        return numbers(row.name, value, row.most, check, *row.bounds)
    return check(row.name, value, *row.bounds)


def integer(name: str, value: object, low: int, high: int) -> int:
    """A whole number from `low` to `high`, of any type that Python counts as one; booleans are none."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise _refused(name, f"is {brief(value)}", f"a whole number from {low} to {high}")
    return number


def real(name: str, value: Any, low: float, high: float) -> float:
    """A number from `low` to `high`, of any type that has a float; booleans and texts have none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, (bool, str)) or not low <= number <= high:
        raise _refused(name, f"is {brief(value)}", f"a number from {low:g} to {high:g}")
    return number


def as_given(name: str, value: Any, low: float, high: float) -> float:
    """As `real`, but an int stays one: metadata say it as it was given."""
    number = real(name, value, low, high)
    return value if type(value) is int else number


def numbers(
    name: str, value: Any, most: int, check: Callable[[str, Any, T, T], T], low: T, high: T
) -> tuple[T, ...]:
    """At least one and at most `most` numbers, each of which passes `check`."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= most:
        raise _refused(name, f"is {brief(value)}", f"a list of 1 to {most} numbers")
    return tuple(check(name, one, low, high) for one in value)


def tensor(name: str, value: Any, *, rank: int) -> Array | None:
    """Finite float32 of a rank; None stays None."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        raise _refused(name, "has rows of unequal length", f"an array of {rank} dimensions") from None
    if not np.issubdtype(array.dtype, np.floating) or array.ndim != rank or array.size == 0:
        expected = f"{rank} dimensions of floating-point numbers"
        raise _refused(name, f"is {array.dtype} of shape {array.shape}", expected)
    # A float64 may be out of range of the float32 that the graphs take.
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise _refused(name, "holds NaN, infinity or what is infinite in float32", "finite numbers")
    return array


def check_shape(name: str, array: Array | None, shape: tuple[int | None, ...]) -> None:
    """Refuse an array of another shape; None stands for any length."""
    if array is None or all(want in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    raise _refused(name, f"has shape {array.shape}", f"({wanted})")


def _refused(name: str, problem: str, expected: str) -> RequestError:
    return RequestError(f"{name} {problem}: expected {expected}", argument=name, fits=expected)
