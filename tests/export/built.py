"""Builds the graphs of a torch module, writes them, and runs the module, without the rest of an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from sdrt_export.components import Component
    from sdrt_export.graphs.graph import Graph
    from sdrt_export.targets import Target


UNET: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
"""The config of a U-Net with every kind of block."""


def build(component: Component, module: Any, target: Target, *, half: bool = False) -> dict[str, Graph]:
    """The graphs of `module`, by file name."""
    from sdrt_export.component_graphs import graphs_of

    return graphs_of(component, config_of(module), target, half=half)


def config_of(module: Any) -> dict[str, Any]:
    """The whole config of a module, as it is in a file."""
    text = (
        module.to_json_string()
        if hasattr(module, "to_json_string")
        else module.config.to_json_string(use_diff=False)
    )
    config: dict[str, Any] = json.loads(text)
    return config


def examples(component: Component, module: Any, size: int) -> dict[str, np.ndarray]:
    """The component's example inputs."""
    return component.examples(config_of(module), size)


def reference(component: Component, module: Any, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """torch's outputs by name."""
    from sdrt_export.verify import modules

    names = component.outputs(config_of(module))
    return dict(zip(names, modules.run(component, module, inputs), strict=True))


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
