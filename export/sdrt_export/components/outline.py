"""Lists the tensors of an architecture from its configs: its builders name them, and no graph is written."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sdrt.families import Family
from sdrt_export.components import Component, parts_of
from sdrt_export.components.component import Config
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.layers import Layers
from sdrt_export.tensors.array import Shape

__all__ = ["num_parameters", "tensors_of"]


class _Outline(Graph):
    """A graph that keeps the weights that are named, and forgets the nodes, so that it is made in milliseconds."""

    def ops(
        self, kind: str, *inputs: str | None, domain: str = "", count: int = 1, **attributes: Any
    ) -> tuple[str, ...]:
        return (kind,) * count

    def constant(self, value: Any, dtype: Any = None) -> str:
        return "constant"

    def input(self, name: str, dims: Any, dtype: int = 0, default: Any = None) -> str:
        return name

    def output(self, name: str, value: str, dims: Any) -> None:
        pass


def tensors_of(components: Iterable[Component], config: Config) -> dict[str, Shape]:
    """The names and shapes of the tensors that a part of a checkpoint has with this config.

    `components` are those of the part: the VAE's encoder and decoder share one.
    """
    shapes: dict[str, Shape] = {}
    for component in components:
        outline = _Outline(component.name)
        component.write(config, Layers(outline), False)
        shapes |= outline.sources
    return shapes


def num_parameters(family: Family, configs: Mapping[str, Config]) -> dict[str, int]:
    """The number of parameters of each part of an architecture."""
    return {
        part: _count(tuple(components), json.dumps(configs[part]))
        for part, components in parts_of(family).items()
    }


@functools.cache
def _count(components: tuple[Component, ...], config: str) -> int:
    """The number of parameters of a part. It is cached, because architectures share parts."""
    return sum(math.prod(shape) for shape in tensors_of(components, json.loads(config)).values())
