"""Gives a graph a further output: a tensor inside it, under a name of its own.

Protocol buffers are merged by writing one after the other, so the graph itself is not parsed: an operator and an output
are appended to the file's bytes.
"""

from __future__ import annotations

from pathlib import Path

from sdrt.onnx.protobuf import message_field

__all__ = ["with_output"]

# Fields of onnx.proto3: ModelProto.graph, GraphProto.node and .output, NodeProto.input, .output and .op_type,
# ValueInfoProto.name.
_GRAPH, _NODE, _OUTPUT = 7, 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP, _VALUE_NAME = 1, 2, 4, 1


def with_output(path: Path, tensor: str, name: str) -> bytes:
    """Return the graph in the file `path` with the output `name`, which equals `tensor`.

    Weights in other files stay there. Raises `OSError` if the file cannot be read.
    """
    node = (
        message_field(_NODE_INPUT, tensor)
        + message_field(_NODE_OUTPUT, name)
        + message_field(_NODE_OP, "Identity")
    )
    graph = message_field(_NODE, node) + message_field(_OUTPUT, message_field(_VALUE_NAME, name))
    return path.read_bytes() + message_field(_GRAPH, graph)
