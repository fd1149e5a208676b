"""Memory for many large arrays that are made, used and freed together."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Arena"]

_BLOCK = 1 << 26
_ALIGNMENT = 64


class Arena:
    """Gives arrays whose memory lies side by side in large blocks. A block is freed with the last of its arrays.

    On Linux the blocks ask for pages of 2 MB. The system clears 512 small pages one by one, which for a gigabyte takes
    longer than the arithmetic of a LoRA. Pages that nobody writes to take no memory.

    The arrays of the shapes and types `expected` lie in one block. Otherwise the last page of each block would be half
    empty.
    """

    def __init__(self, expected: Iterable[tuple[tuple[int, ...], DTypeLike]] = ()) -> None:
        size = sum(_room(shape, np.dtype(dtype)) for shape, dtype in expected)
        self._free = _block(size) if size else np.empty(0, np.uint8)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """A contiguous array with any content."""
        kind = np.dtype(dtype)
        size, taken = math.prod(shape) * kind.itemsize, _room(shape, kind)
        if taken > len(self._free):
            self._free = _block(max(taken, _BLOCK))
        array: NDArray[Any] = self._free[:size].view(kind).reshape(shape)
        self._free = self._free[taken:]
        return array


def _room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The bytes that an array takes in a block."""
    size = math.prod(shape) * dtype.itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _block(size: int) -> NDArray[np.uint8]:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(size, np.uint8)
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError(f"{size} bytes") from None
    with suppress(OSError):  # a kernel without large pages
        block.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(block, np.uint8)
