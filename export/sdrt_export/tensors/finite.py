"""Checks tensors for NaN and infinity when they are read, because such weights make black images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sdrt.common.finite import is_finite
from sdrt.errors import IntegrityError
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.lazy import LazyTensors, shape_of

__all__ = ["FiniteTensors", "check_finite"]


class FiniteTensors(LazyTensors):
    """The `tensors` of the part at `place`, which messages name. The attribute `tensors` gives them unchecked."""

    def __init__(self, place: str, tensors: Mapping[str, Array]) -> None:
        self._place, self.tensors = place, tensors

    def __getitem__(self, name: str) -> Array:
        array = self.tensors[name]
        if array.dtype.itemsize > 4:
            with np.errstate(over="ignore"):  # becomes infinity, and is refused
                array = array.astype(np.float32)
        if not is_finite(array):
            raise IntegrityError.advised(
                f"{self._place}: the weight {name} contains NaN or infinity",
                "download the checkpoint again, or use one in another precision",
            )
        return array

    def shape(self, name: str) -> Shape:
        """See `LazyTensors`."""
        return shape_of(self.tensors, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: Any) -> bool:
        return name in self.tensors


def check_finite(tensors: Mapping[str, Array]) -> None:
    """Read every tensor, so that `FiniteTensors` raise `IntegrityError` for one with NaN or infinity."""
    for name in tensors:
        tensors[name]
