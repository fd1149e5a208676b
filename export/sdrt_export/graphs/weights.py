"""The weights that a graph names: where each comes from in a checkpoint, and how the graph stores it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Shape", "Weight"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Arrange = Callable[[Sequence[Array]], Array]


def _as_it_is(arrays: Sequence[Array]) -> Array:
    return arrays[0]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One weight of a graph.

    Attributes:
        name: in the graph, and in the file of its weights.
        sources: the tensors of the checkpoint that it is made of, with their shapes.
        shape: in the graph.
        arrange: makes it from those tensors, by moving numbers only: transposing, joining, padding with zeros.
        exact: whether to keep it in float32 where the graph computes in float16.
    """

    name: str
    sources: Mapping[str, Shape]
    shape: Shape
    arrange: Arrange = _as_it_is
    exact: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is one tensor of the checkpoint, unchanged."""
        return self.arrange is _as_it_is

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    def value(self, tensors: Mapping[str, Array]) -> Array:
        """The weight, made of a checkpoint's `tensors`."""
        return self.arrange([tensors[name] for name in self.sources])
