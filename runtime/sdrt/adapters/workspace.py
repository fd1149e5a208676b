"""Where changed weights are made: their memory, and the arithmetic of products."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sdrt.adapters.change import Array, Factors, Shape
from sdrt.common.arena import Arena

if TYPE_CHECKING:
    from sdrt.onnx.added_product import AddedProduct

__all__ = ["Workspace"]

Floats = NDArray[np.float32]


class Workspace:
    """Memory for the weights of one graph, and sums in it. It is used once, by one thread.

    `expected` are the shapes and types of the weights, if they are known.
    """

    def __init__(self, expected: Iterable[tuple[Shape, DTypeLike]] = ()) -> None:
        self._arena = Arena(expected)
        self._scratch: Floats = np.empty(0, np.float32)

    def empty(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """An array for a weight, with any content."""
        return self._arena.empty(shape, dtype)

    def scratch(self, shape: Shape) -> Floats:
        """An array with any content, which is valid until the next call."""
        size = math.prod(shape)
        if size > self._scratch.size:
            self._scratch = Arena().empty((size,))
        return self._scratch[:size].reshape(shape)

    def add(self, to: Floats, factors: Factors) -> None:
        """Add a product to a contiguous array, in place."""
        if not len(factors.columns):
            return
        columns = factors.columns.reshape(len(factors.columns), -1)
        self._added_product(to.reshape(len(to), -1), factors.rows, columns)

    @cached_property
    def _added_product(self) -> AddedProduct:
        # ONNX Runtime is imported only when a weight changes.
        from sdrt.onnx.added_product import AddedProduct

        return AddedProduct()
