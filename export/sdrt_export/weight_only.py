"""Stores a text encoder's weights in 8 bits. Everything is still computed in float32.

A text encoder runs once for each prompt, so its speed matters little, but its weights take memory. Linears become
MatMulNBits, whose weights have a scale for each block of inputs. The table of tokens has a scale for each token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from sdrt_export.graphs.graph import MICROSOFT
from sdrt_export.graphs.stored import StoredGraph

__all__ = ["quantize_weights"]

Array = np.ndarray[Any, Any]
BLOCK = 64
"""How many weights of an output channel share a scale."""
_LEVELS, _ZERO = 127, 128
# Smaller tables, such as that of positions, stay as they are.
_LEAST_ROWS = 256


def quantize_weights(graph: StoredGraph) -> list[str]:
    """Rewrite the linears and the table of tokens in `graph`. Return the names of their weights.

    The weights are converted one at a time, when the graph is written.
    """
    done: list[str] = []
    nodes: list[NodeProto] = []
    readers = Counter(name for node in graph.model.graph.node for name in node.input)
    for node in graph.model.graph.node:
        made, name = _rewritten(graph, node, readers)
        nodes += made
        done += [name] if name else []
    graph.nodes = nodes
    if not any(opset.domain == MICROSOFT for opset in graph.model.opset_import):
        graph.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return done


def _rewritten(
    graph: StoredGraph, node: NodeProto, readers: Mapping[str, int]
) -> tuple[list[NodeProto], str]:
    """The nodes in place of `node`, and the name of the weight that they read in 8 bits.

    If nothing changes, the node itself and "".
    """
    for operator, place, rewrite in (("MatMul", 1, _linear), ("Gather", 0, _table)):
        name = node.input[place] if node.op_type == operator else ""
        # Another reader would need the weight as it was.
        if name in graph.initializers and len(graph.shape(name)) == 2 and readers[name] == 1:
            made = list(rewrite(graph, node, name))
            if made:
                return made, name
    return [node], ""


def _linear(graph: StoredGraph, node: NodeProto, name: str) -> Iterator[NodeProto]:
    """A linear whose weight is [in, out]."""
    weight = graph.array(name)
    inputs, outputs = weight.shape

    def blocks() -> Array:
        """The weight as [out, blocks, BLOCK], with zeros at the end."""
        padded = np.pad(weight.T, ((0, 0), (0, -inputs % BLOCK)))
        return padded.reshape(outputs, -1, BLOCK)

    steps = _steps(blocks())

    def convert() -> Array:
        return (np.rint(blocks() / steps) + _ZERO).astype(np.uint8)

    graph.convert(name, np.uint8, convert, shape=(outputs, *steps.shape[1:2], BLOCK))
    scale = graph.constant(f"{name}.scale", steps[..., 0])
    yield helper.make_node(
        "MatMulNBits",
        [node.input[0], name, scale],
        node.output,
        name=node.name,
        domain=MICROSOFT,
        K=inputs,
        N=outputs,
        bits=8,
        block_size=BLOCK,
    )


def _table(graph: StoredGraph, node: NodeProto, name: str) -> Iterator[NodeProto]:
    """A table [tokens, width], of which rows are gathered."""
    rows = graph.array(name)
    along = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    if len(rows) < _LEAST_ROWS or any(along):
        return
    steps, row = _steps(rows), node.output[0]
    graph.convert(name, np.int8, lambda: np.rint(rows / steps).astype(np.int8))
    scale = graph.constant(f"{name}.scale", steps)

    def made(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(operator, inputs, [output], name=output, **attributes)

    yield made("Gather", [name, node.input[1]], f"{row}.int8", axis=0)
    yield made("Cast", [f"{row}.int8"], f"{row}.float", to=TensorProto.FLOAT)
    yield made("Gather", [scale, node.input[1]], f"{row}.scale", axis=0)
    yield made("Mul", [f"{row}.float", f"{row}.scale"], row)


def _steps(weights: Array) -> Array:
    """The step of the weights along the last axis, symmetric about zero, in float32."""
    largest = np.abs(weights).max(axis=-1, keepdims=True)
    steps: Array = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(_LEVELS)
    return steps
