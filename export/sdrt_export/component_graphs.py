"""The graphs of a component: the whole one, the VAE's in stages, and those that compute in float32 instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.model_folder.folder import STAGES_GRAPH, WIDE_GRAPH, WIDE_STAGES_GRAPH
from sdrt_export.architectures.vae_stages import write_stages
from sdrt_export.components import Component
from sdrt_export.graphs.graph import FLOAT, HALF, Graph
from sdrt_export.targets import Target

__all__ = ["GRAPH", "graph_of", "graphs_of", "transposed_weights"]

GRAPH = "model.onnx"


def graphs_of(
    component: Component, config: Mapping[str, Any], target: Target, *, half: bool = False
) -> dict[str, Graph]:
    """Build a component's graphs from its config, by file name.

    Args:
        component: the component.
        config: its config, as the checkpoint has it.
        target: how layers are written.
        half: whether the graphs compute in float16. Then each has another beside it that computes in float32.

    Raises:
        UnsupportedModelError: the config says something that is not supported, or needs a kernel that the target lacks.
    """
    kinds = {GRAPH: (half, False), STAGES_GRAPH: (half, True)}
    if half:
        kinds |= {WIDE_GRAPH: (False, False), WIDE_STAGES_GRAPH: (False, True)}
    return {
        name: graph_of(component, config, target, half=half, stages=stages)
        for name, (half, stages) in kinds.items()
        if component.parts is not None or not stages
    }


def graph_of(
    component: Component, config: Mapping[str, Any], target: Target, *, half: bool, stages: bool
) -> Graph:
    """Build one of a component's graphs: whole or in `stages`, in float16 (`half`) or float32. See `graphs_of`."""
    compute = HALF if half else FLOAT
    if not stages:
        graph = Graph(component.name, compute)
        component.write(config, target.layers(graph), target.host_indices)
        return graph
    assert component.parts is not None, component.name
    graph = Graph(f"{component.name} in stages", compute)
    write_stages(component.parts(config), target.layers(graph))
    return graph


def transposed_weights(graph: Graph) -> list[str]:
    """The names of the weights that a graph stores transposed."""
    return sorted(weight.name for weight in graph.weights.values() if weight.is_transposed)
