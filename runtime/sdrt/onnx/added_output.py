"""Gives a graph a further output: a tensor inside it, under a name of its own.

Protocol buffers are merged by writing one after the other, so the graph itself is not parsed: an operator and an output
are appended to the file's bytes.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["with_output"]

# Fields of onnx.proto3: ModelProto.graph, GraphProto.node and .output, NodeProto.input, .output and .op_type,
# ValueInfoProto.name.
_GRAPH, _NODE, _OUTPUT = 7, 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP, _VALUE_NAME = 1, 2, 4, 1
_BYTES = 2


def with_output(path: Path, tensor: str, name: str) -> bytes:
    """Return the graph in the file `path` with the output `name`, which equals `tensor`.

    Weights in other files stay there. Raises `OSError` if the file cannot be read.
    """
    node = _field(_NODE_INPUT, tensor) + _field(_NODE_OUTPUT, name) + _field(_NODE_OP, "Identity")
    graph = _field(_NODE, node) + _field(_OUTPUT, _field(_VALUE_NAME, name))
    return path.read_bytes() + _field(_GRAPH, graph)


def _field(number: int, content: str | bytes) -> bytes:
    """A field that holds a text or another message."""
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """A number in groups of 7 bits, the lowest first. All but the last have the highest bit set."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
