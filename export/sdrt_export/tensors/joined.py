"""A component's tensors with those of adapters beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.lazy import LazyTensors, shape_of

__all__ = ["JoinedTensors"]


class JoinedTensors(LazyTensors):
    """The tensors of several mappings, which have no name in common."""

    def __init__(self, *parts: Mapping[str, Array]) -> None:
        self._parts = parts

    def part_of(self, name: str) -> Mapping[str, Array]:
        """The mapping that has a tensor; the first one if none has."""
        return next((part for part in self._parts if name in part), self._parts[0])

    def shape(self, name: str) -> Shape:
        """See `LazyTensors`."""
        return shape_of(self.part_of(name), name)

    def __getitem__(self, name: str) -> Array:
        return self.part_of(name)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for part in self._parts for name in part)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __contains__(self, name: Any) -> bool:
        return any(name in part for part in self._parts)
