"""A checkpoint's tensors with the changes of adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdrt.adapters.adaptation import Adaptation
from sdrt.adapters.workspace import Workspace
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.lazy import LazyTensors, shape_of

__all__ = ["ChangedTensors"]


class ChangedTensors(LazyTensors):
    """`tensors` of a component with the changes of `adaptation`. Those that change are made in float32.

    The attribute `tensors` gives them without the changes, and `names` those that change.
    """

    def __init__(self, tensors: Mapping[str, Array], adaptation: Adaptation, component: str) -> None:
        self.tensors, self.names = tensors, adaptation.changes(component).keys()
        self._adaptation, self._component, self._workspace = adaptation, component, Workspace()

    def __getitem__(self, name: str) -> Array:
        array = self.tensors[name]
        if name not in self.names:
            return array
        return self._adaptation.changed(self._component, name, array, self._workspace)

    def shape(self, name: str) -> Shape:
        """See `LazyTensors`."""
        return shape_of(self.tensors, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: Any) -> bool:
        return name in self.tensors
