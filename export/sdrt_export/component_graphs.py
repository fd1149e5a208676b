"""The graphs of a component: the whole one, the VAE's in stages, the U-Net's for ControlNets, and those in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.model_folder.model import CONTROLLED_GRAPH, STAGES_GRAPH, WIDE
from sdrt_export.architectures.vae_stages import write_stages
from sdrt_export.components import Component
from sdrt_export.graphs.graph import FLOAT, HALF, Graph
from sdrt_export.targets import Target

__all__ = ["GRAPH", "arranged_weights", "graph_of", "graphs_of", "transposed_weights"]

GRAPH = "model.onnx"


def graphs_of(
    component: Component,
    config: Mapping[str, Any],
    target: Target,
    *,
    half: bool = False,
    controlled: bool = False,
) -> dict[str, Graph]:
    """Build a component's graphs from its config, by file name.

    Args:
        component: the component.
        config: its config, as the checkpoint has it.
        target: how layers are written.
        half: whether the graphs compute in float16. Then each has another beside it that computes in float32.
        controlled: whether to build the U-Net's graph for ControlNets too.

    Raises:
        UnsupportedModelError: the config says something that is not supported, or needs a kernel that the target lacks.
    """
    kinds = [GRAPH]
    kinds += [STAGES_GRAPH] if component.parts is not None else []
    kinds += [CONTROLLED_GRAPH] if component.controlled is not None and controlled else []
    made = {kind: graph_of(component, config, target, half=half, kind=kind) for kind in kinds}
    if half:
        made |= {WIDE[kind]: graph_of(component, config, target, half=False, kind=kind) for kind in kinds}
    return made


def graph_of(
    component: Component, config: Mapping[str, Any], target: Target, *, half: bool, kind: str = GRAPH
) -> Graph:
    """Build one of a component's graphs, in float16 (`half`) or float32. `kind` is its file's name. See `graphs_of`."""
    compute = HALF if half else FLOAT
    if kind == CONTROLLED_GRAPH:
        assert component.controlled is not None, component.name
        graph = Graph(f"{component.name} for ControlNets", compute)
        component.controlled.write(config, target.layers(graph), target.host_indices)
        return graph
    if kind != STAGES_GRAPH:
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


def arranged_weights(graph: Graph) -> dict[str, dict[str, Any]]:
    """How a graph stores the weights that are neither a tensor as it is nor a transposed one, by name."""
    return {
        weight.name: {"of": list(weight.sources), **weight.arrange.entry()}
        for weight in graph.weights.values()
        if not (weight.is_plain or weight.is_transposed)
    }
