"""Builds the graphs of a torch module, and writes them, without the rest of an export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from sdrt_export.components import Component
    from sdrt_export.graphs.graph import Graph
    from sdrt_export.targets import Target


def build(component: Component, module: Any, target: Target, *, half: bool = False) -> dict[str, Graph]:
    """The graphs of `module`, by file name."""
    from sdrt_export.graph import graphs_of
    from sdrt_export.side_files import config_of

    return graphs_of(component, config_of(module), target, half=half)


def as_ir(graph: Graph) -> ir.Model:
    """A graph without the values of its weights."""
    import onnx_ir as ir

    from sdrt_export.graphs.graph import FLOAT, HALF, Place

    types = {
        name: FLOAT if weight.exact or graph.compute == FLOAT else HALF
        for name, weight in graph.weights.items()
    }
    return ir.from_proto(graph.model({name: Place(location="weights") for name in graph.weights}, types))


def write(
    component: Component,
    module: Any,
    target: Target,
    folder: Path,
    *,
    half: bool = False,
    narrow: bool = False,
) -> Graph:
    """Write the graphs of `module` to a new `folder`. Return the whole one; its file is `model.onnx`."""
    from sdrt_export.graphs.files import write_graphs

    graphs = build(component, module, target, half=half)
    folder.mkdir(parents=True)
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    write_graphs(folder, graphs, tensors, narrow=narrow)
    return graphs["model.onnx"]
