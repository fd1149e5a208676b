"""Ranges of numbers on the axes of a plot, in our form and in that of A1111's X/Y/Z plot.

``10-30:5`` is 10, 15, 20, 25, 30. In A1111's form that is ``10-30 (+5)``. ``1-5`` is 1, 2, 3, 4, 5, and ``1-10 [5]`` is
five numbers that are equally far apart. A range may fall: ``30-10:5``, ``10-5 (-3)``.

Unlike A1111's, a range of numbers with a point never goes beyond its end, and one that falls includes it.
"""

from __future__ import annotations

import re
from decimal import Decimal

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.request.setting import Kind

__all__ = ["in_range"]

_MOST = 10_000
_NUMBER = r"(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"
_RANGE = re.compile(
    rf"(?P<start>[+-]?\s*{_NUMBER})\s*-\s*(?P<end>[+-]?\s*{_NUMBER})"
    rf"(?:\s*:\s*(?P<step>[+-]?{_NUMBER})|\s*\(\s*(?P<a1111>[+-]?{_NUMBER})\s*\)|\s*\[\s*(?P<count>\d{{1,9}})\s*\])?"
)


def in_range(text: str, kind: Kind, argument: str) -> list[int] | list[float] | None:
    """Return the numbers of a range, both ends included. None if the text is no range.

    Args:
        text: a value of an axis.
        kind: the type of the values. Only ``int`` and ``float`` have ranges.
        argument: the setting, for errors.

    Raises:
        RequestError: the range has no numbers or more than 10,000, or parts of whole numbers.
    """
    found = _RANGE.fullmatch(text) if kind in (int, float) else None
    if found is None:
        return None
    if kind is int and "." in re.sub(r"\[.*", "", text):
        raise _refused(text, "whole numbers", argument)
    start, end = (Decimal(found[name].replace(" ", "")) for name in ("start", "end"))
    if found["count"] is not None:
        numbers = _spread(text, start, end, int(found["count"]), argument)
    else:
        numbers = _stepped(text, start, end, found["step"] or found["a1111"], argument)
    # As in A1111, a whole number between two others is cut off.
    return [int(number) for number in numbers] if kind is int else [float(number) for number in numbers]


def _spread(text: str, start: Decimal, end: Decimal, count: int, argument: str) -> list[Decimal]:
    if not 1 <= count <= _MOST:
        raise _refused(text, f"1 to {_MOST} numbers", argument)
    return [start + (end - start) * index / max(count - 1, 1) for index in range(count)]


def _stepped(text: str, start: Decimal, end: Decimal, step: str | None, argument: str) -> list[Decimal]:
    size = Decimal(step or 1)
    if end < start and (step is None or step[0] not in "+-"):
        size = -size
    if not size or (end - start) * size < 0:
        raise _refused(text, f"a step from {start} to {end}", argument)
    count = int((end - start) / size) + 1
    if count > _MOST:
        raise _refused(text, f"at most {_MOST} numbers", argument)
    return [start + size * index for index in range(count)]


def _refused(text: str, fits: str, argument: str) -> RequestError:
    return RequestError.expected(f"the range {brief(text)}", fits, argument=argument)
