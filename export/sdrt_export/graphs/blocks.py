"""Convolutions as ONNX Runtime's CPU provider runs them: images and kernels in blocks of channels.

When ONNX Runtime loads a graph, it copies each kernel into blocks (its NCHWc layout), and keeps both until all are
copied. Here kernels go into blocks as they are read, and the graph has the operators for them already. The results are
the same bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from sdrt.onnx.engine import FAILURES, ort
from sdrt_export.graphs.graph import FLOAT, OPSET, Graph
from sdrt_export.tensors.array import Array, Shape

__all__ = ["block_size", "in_blocks", "kernels_for_blocks", "use_blocks"]

_DOMAIN = "com.microsoft.nchwc"
_SIZES = (8, 16)
# ONNX Runtime joins these activations with the convolutions before them. It also joins a sum with a convolution, which
# gives other bits, if it knows that both sides are of one size. In SD's large networks it never knows: one side comes
# from another input, or from behind a norm, whose Reshape hides the size.
_JOINED = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})


@cache
def block_size() -> int:
    """How many channels a block has on this CPU. 0 if ONNX Runtime reads kernels as they are."""
    return next((size for size in _SIZES if _is_right(size)), 0)


def _is_right(size: int) -> bool:
    """Whether convolutions with blocks of this size give what those without give."""
    source = np.random.default_rng(0)
    kernels = {name: source.standard_normal((32, 32, side, side), np.float32) for name, side, _ in _PROBED}
    x = source.standard_normal((1, 32, 6, 6), np.float32)
    blocked = _convolutions({name: in_blocks(kernel, size) for name, kernel in kernels.items()})
    use_blocks(blocked, dict.fromkeys(kernels, 32))
    try:
        one, other = (_run(model, x) for model in (_convolutions(kernels), blocked))
    except FAILURES:
        return False
    return np.array_equal(one, other)


# Kernels of each kind that SD's networks have: the side and the stride.
_PROBED = (("kernel", 3, 1), ("pixel", 1, 1), ("half", 3, 2))


def _convolutions(kernels: Mapping[str, Array]) -> onnx.ModelProto:
    """The model of `_PROBED` after one another."""
    nodes, last = [], "x"
    for name, side, stride in _PROBED:
        sides: dict[str, Any] = {"kernel_shape": [side] * 2, "pads": [side // 2] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", [last, name], [f"{name}.y"], name=name, **sides))
        last = f"{name}.y"
    ends = [
        helper.make_tensor_value_info(name, FLOAT, [1, 32, size, size])
        for name, size in (("x", 6), (last, 3))
    ]
    tensors = [onnx.numpy_helper.from_array(kernel, name) for name, kernel in kernels.items()]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _run(model: onnx.ModelProto, x: Array) -> Array:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    made: Array = session.run(None, {"x": x})[0]
    return made


def kernels_for_blocks(graph: Graph, size: int) -> dict[str, int]:
    """The kernels of a graph that fill blocks of `size` channels, with their output channels.

    There are none if ONNX Runtime would do more than put them in blocks.
    """
    if graph.compute != FLOAT or any(op in _JOINED for op, _ in graph.reads()):
        return {}
    kernels, others = set[str](), set[str]()
    for op, inputs in graph.reads():
        taken = inputs[1:2] if op == "Conv" else ()
        kernels.update(taken)
        others.update(name for place, name in enumerate(inputs) if not (taken and place == 1))
    found = (graph.weights[name] for name in kernels - others if name in graph.weights)
    return {one.name: one.shape[0] for one in found if one.is_plain and _fills(one.shape, size)}


def _fills(shape: Shape, size: int) -> bool:
    return len(shape) == 4 and not (shape[0] % size or shape[1] % size)


def in_blocks(kernel: Array, size: int, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """A kernel `[out, in, rows, columns]` in blocks of `size` output and input channels (OIHWio), in its own shape.

    `out` is the contiguous array to write to.
    """
    made = np.empty(kernel.shape, np.float32) if out is None else out
    channels, inputs, *area = kernel.shape
    count = int(np.prod(area))
    blocks = made.reshape(channels // size, inputs // size, count, size, size)
    for index, block in enumerate(blocks):
        rows = kernel[index * size : (index + 1) * size].astype(np.float32)
        np.copyto(block, rows.reshape(size, inputs // size, size, count).transpose(1, 3, 2, 0))
    return made


def use_blocks(model: onnx.ModelProto, kernels: Mapping[str, int]) -> None:
    """Let the convolutions with these kernels take them in blocks. `kernels` has their output channels.

    An image goes into blocks once, and out of them if anything but such a convolution reads it.
    """
    if not kernels:
        return
    nodes = list(model.graph.node)
    plain = {value.name for value in model.graph.output}.union(
        *(_reads_plain(node, kernels) for node in nodes)
    )
    rewriting = _Rewriting(kernels, plain)
    made = [
        onnx.NodeProto.FromString(one.SerializeToString()) for node in nodes for one in rewriting.of(node)
    ]
    del model.graph.node[:]
    model.graph.node.extend(made)
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def _is_blocked(node: onnx.NodeProto, kernels: Collection[str]) -> bool:
    return node.op_type == "Conv" and node.input[1] in kernels


def _reads_plain(node: onnx.NodeProto, kernels: Collection[str]) -> Iterable[str]:
    return list(node.input[1:] if _is_blocked(node, kernels) else node.input)


@dataclass
class _Rewriting:
    """Writes convolutions in blocks, in the order of the graph.

    Attributes:
        kernels: the kernels that are in blocks, with their output channels.
        plain: the values that something reads outside of blocks.
        blocked: the values that are in blocks too, and what they are called there.
    """

    kernels: Mapping[str, int]
    plain: Collection[str]
    blocked: dict[str, str] = field(default_factory=dict)

    def of(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        """The nodes that take the place of one."""
        if not _is_blocked(node, self.kernels):
            return [node]
        image, result, made = node.input[0], node.output[0], [node]
        if image not in self.blocked:
            made.insert(0, self._reordered("ReorderInput", image, self._name(image)))
        if result in self.plain:
            channels = self.kernels[node.input[1]]
            made.append(self._reordered("ReorderOutput", self._name(result), result, channels=channels))
        node.domain, node.input[0], node.output[0] = _DOMAIN, self._name(image), self._name(result)
        return made

    def _name(self, value: str) -> str:
        """What a value is called in blocks."""
        return self.blocked.setdefault(value, f"{value}.in_blocks")

    @staticmethod
    def _reordered(op: str, value: str, result: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, [value], [result], name=f"{result}/{op}", domain=_DOMAIN, **attributes)
