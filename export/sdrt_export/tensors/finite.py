"""Checks tensors for NaN and infinity when they are read, because such weights make black images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sdrt.errors import IntegrityError
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.lazy import LazyTensors, shape_of

__all__ = ["FiniteTensors"]

# Numbers at a time, so that a mask of them stays in the processor's cache.
_BLOCK = 1 << 18
# Bits of float16.
_ALL_BUT_SIGN, _INFINITY = np.uint16(0x7FFF), np.uint16(0x7C00)


class FiniteTensors(LazyTensors):
    """The `tensors` of the part at `place`, which messages name. The attribute `tensors` gives them unchecked."""

    def __init__(self, place: str, tensors: Mapping[str, Array]) -> None:
        self._place, self.tensors = place, tensors

    def __getitem__(self, name: str) -> Array:
        array = self.tensors[name]
        if array.dtype.itemsize > 4:
            with np.errstate(over="ignore"):  # becomes infinity, and is refused
                array = array.astype(np.float32)
        if not _is_finite(array):
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


def _is_finite(array: Array) -> bool:
    flat = array.reshape(-1)
    check = _are_finite_halves if array.dtype == np.float16 else _are_finite
    return all(check(flat[at : at + _BLOCK]) for at in range(0, flat.size, _BLOCK))


def _are_finite(numbers: Array) -> bool:
    return bool(np.isfinite(numbers).all())


def _are_finite_halves(numbers: Array) -> bool:
    """Compares bits, because NumPy's `isfinite` takes ten times as long for float16.

    Without the sign bit, infinity is the smallest pattern that is not finite.
    """
    return bool((numbers.view(np.uint16) & _ALL_BUT_SIGN).max() < _INFINITY)
