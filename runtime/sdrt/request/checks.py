"""Checks of single arguments. Each raises a `RequestError` that names the argument and the values it accepts."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import refused, wrong_value
from sdrt.errors import RequestError
from sdrt.request.clip_skip import SkipOfLabel
from sdrt.request.pairs import Pair
from sdrt.request.setting import Setting

__all__ = [
    "MAX_PROMPT_LENGTH",
    "both_given",
    "check_shape",
    "check_text",
    "checked",
    "integer",
    "numbers",
    "real",
    "real_or_int",
    "tensor",
]

MAX_PROMPT_LENGTH = 20_000
"""The longest prompt in characters. This is far longer than users' prompts, and still fast to parse."""

T = TypeVar("T")
Array = NDArray[np.float32]


def check_text(name: str, value: object) -> None:
    """Check that `value` is None, a string or a list of strings, and that each can be encoded."""
    if value is None:
        return
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise refused(name, f"is {type(value).__name__}", "a string or a non-empty list of strings")
    for text in texts:
        if len(text) > MAX_PROMPT_LENGTH:
            raise refused(name, f"has {len(text)} characters", f"at most {MAX_PROMPT_LENGTH}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise refused(name, "contains half a surrogate pair, which is not a character", "valid Unicode")


def checked(row: Setting, value: Any) -> Any:
    """Check a value of the setting `row`, and return it as a plain Python value or a float32 array.

    Checks that depend on other settings are in `validation`, checks that depend on the model in `fitted`.
    """
    if value is None and row.default is None:
        return None
    if row.rank is not None:
        return tensor(row.name, value, rank=row.rank)
    if row.kind is bool and not isinstance(value, bool):
        raise wrong_value(row.name, value, "True or False")
    if row.kind is not None and issubclass(row.kind, Pair):
        return _pair(row.name, value, row.kind)
    if row.choices:
        return _chosen(row, value)
    if row.bounds is None:
        return value
    check: Callable[..., Any] = integer if row.kind is int else real_or_int if row.keeps_int else real
    if row.takes_one and not isinstance(value, (list, tuple, np.ndarray)):
        value = [value]
    if row.max_items is not None:
        return numbers(row.name, value, row.max_items, _item_check(row, check), *row.bounds)
    number = check(row.name, value, *row.bounds)
    # The model decides from which layer on it counts.
    return SkipOfLabel(number) if isinstance(value, SkipOfLabel) else number


def _item_check(row: Setting, check: Callable[..., Any]) -> Callable[..., Any]:
    """The check of an item, which may be a dict in some settings."""
    reads = row.reads
    if reads is None:
        return check
    return lambda name, one, low, high: (
        reads(name, one) if isinstance(one, Mapping) else check(name, one, low, high)
    )


def _chosen(row: Setting, value: Any) -> Any:
    """Check a name, or a list of names if the setting takes one."""
    is_list = row.max_items is not None and isinstance(value, (list, tuple))
    names = tuple(value) if is_list else (value,)
    if not names or len(names) > (row.max_items or 1):
        raise wrong_value(row.name, value, f"a list of 1 to {row.max_items} names")
    for name in names:
        if not (isinstance(name, str) and name in row.choices):
            raise wrong_value(row.name, name, f"one of {', '.join(row.choices)}")
    return names if is_list else value


def _pair(name: str, value: Any, kind: type[Pair]) -> Pair:
    """Check a pair of whole numbers of any integer type, or the text of one."""
    try:
        return kind(value if isinstance(value, str) else [operator.index(one) for one in value])
    except (TypeError, ValueError):
        raise wrong_value(name, value, kind.expected()) from None


def integer(name: str, value: object, low: int, high: int) -> int:
    """Check that `value` is an integer from `low` to `high`, of any integer type, and return it. Refuses booleans."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise wrong_value(name, value, f"a whole number from {low} to {high}")
    return number


def real(name: str, value: Any, low: float, high: float) -> float:
    """Check that `value` is a number from `low` to `high`, and return it as a float. Refuses booleans and strings."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, (bool, str)) or not low <= number <= high:
        raise wrong_value(name, value, f"a number from {low:g} to {high:g}")
    return number


def real_or_int(name: str, value: Any, low: float, high: float) -> float:
    """Check as `real` does, but return an int unchanged, because metadata show numbers as the user wrote them."""
    number = real(name, value, low, high)
    return value if type(value) is int else number


def numbers(
    name: str, value: Any, max_items: int, check: Callable[[str, Any, T, T], T], low: T, high: T
) -> tuple[T, ...]:
    """Check a list of 1 to `max_items` numbers. `check` checks and converts each of them."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= max_items:
        raise wrong_value(name, value, f"a list of 1 to {max_items} numbers")
    return tuple(check(name, one, low, high) for one in value)


def tensor(name: str, value: Any, *, rank: int) -> Array | None:
    """Check an array of `rank` dimensions with finite numbers, and return it as float32. None stays None."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        raise refused(name, "has rows of unequal length", f"an array of {rank} dimensions") from None
    if not np.issubdtype(array.dtype, np.floating) or array.ndim != rank or array.size == 0:
        expected = f"{rank} dimensions of floating-point numbers"
        raise refused(name, f"is {array.dtype} of shape {array.shape}", expected)
    # The graphs take float32, whose range is smaller than that of float64.
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise refused(
            name, "contains NaN, infinity, or a number that is infinite in float32", "finite numbers"
        )
    return array


def check_shape(name: str, array: Array | None, shape: tuple[int | None, ...]) -> None:
    """Check the shape of an array. None in `shape` accepts any length."""
    if array is None or all(want in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    raise refused(name, f"has shape {array.shape}", f"({wanted})")


def both_given(name: str, other: str) -> RequestError:
    """The error for two arguments that exclude each other, of which `name` is the one to leave out."""
    fits = f"at most one of {name} and {other}"
    return RequestError(f"expected {fits}, got both", argument=name, fits=fits)
