"""The types of a tensor's numbers and of its shape."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

__all__ = ["Array", "Shape"]

Array = NDArray[Any]
Shape = tuple[int, ...]
