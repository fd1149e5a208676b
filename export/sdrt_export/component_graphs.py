"""The graphs of a component: of each kind that it has, and those that compute in float32 instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdrt.model_folder.graph_kind import STAGES_GRAPH, WHOLE_GRAPH, GraphKind, MoreInputs
from sdrt_export.architectures.vae_stages import write_stages
from sdrt_export.components import Component
from sdrt_export.graphs.graph import FLOAT, HALF, Graph
from sdrt_export.targets import Target

__all__ = ["GRAPH", "arranged_weights", "graph_of", "graphs_of", "has_kind", "transposed_weights"]

GRAPH = WHOLE_GRAPH.file


def graphs_of(
    component: Component,
    config: Mapping[str, Any],
    target: Target,
    *,
    half: bool = False,
    more: Sequence[MoreInputs] = (),
) -> dict[str, Graph]:
    """Build a component's graphs from its config, by file name.

    Args:
        component: the component.
        config: its config, as the checkpoint has it.
        target: how layers are written.
        half: whether the graphs compute in float16. Then each has another beside it that computes in float32.
        more: the further inputs of the U-Net for which to build graphs too.

    Raises:
        UnsupportedModelError: the config says something that is not supported, or needs a kernel that the target lacks.
    """
    narrow = [WHOLE_GRAPH, STAGES_GRAPH, *(GraphKind(inputs=inputs) for inputs in more)]
    kinds = [kind for kind in narrow if has_kind(component, kind)]
    kinds += [kind.widened for kind in kinds if half]
    return {kind.file: graph_of(component, config, target, half=half, kind=kind) for kind in kinds}


def has_kind(component: Component, kind: GraphKind) -> bool:
    """Tell whether a component can have a graph of this kind. Those in float32 are for components in float16."""
    if kind.stages:
        return component.parts is not None
    return component.extended is not None or not kind.inputs


def graph_of(
    component: Component,
    config: Mapping[str, Any],
    target: Target,
    *,
    half: bool,
    kind: GraphKind = WHOLE_GRAPH,
) -> Graph:
    """Build one of a component's graphs. It computes in float16 for `half`, unless it is wide. See `graphs_of`."""
    compute = HALF if half and not kind.wide else FLOAT
    if kind.stages:
        assert component.parts is not None, component.name
        graph = Graph(f"{component.name} in stages", compute)
        write_stages(component.parts(config), target.layers(graph))
        return graph
    if kind.inputs:
        assert component.extended is not None, component.name
        component = component.extended(kind.inputs)
    graph = Graph(component.name, compute)
    component.write(config, target.layers(graph), target.host_indices)
    return graph


def transposed_weights(graph: Graph) -> list[str]:
    """The names of the weights that a graph stores transposed."""
    return sorted(weight.name for weight in graph.weights.values() if weight.is_transposed)


def arranged_weights(graph: Graph) -> dict[str, dict[str, Any]]:
    """How a graph stores the weights that are neither a tensor as it is nor a transposed one, by name."""
    return {
        weight.name: {"of": list(weight.sources), **weight.arrange.entry()}
        for weight in graph.weights.values()
        if not (weight.is_plain or weight.is_transposed)
    }
