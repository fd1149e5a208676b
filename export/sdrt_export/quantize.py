"""Rewrites a graph to int8 for ONNX Runtime's CPU provider: convolutions and linears in 8 bits, the rest in float32.

Each rewritten layer takes unsigned bytes with a scale from calibration, and weights with a scale for each output
channel. Sums are exact in int32. The graph names the kernels (QLinearConv, MatMulIntegerToFloat), as it does the fused
operators of :mod:`sdrt_export.targets`, so ONNX Runtime need not recognise a pattern.

A linear's output is float32. A convolution's output is bytes, with a range for each *channel*. The range is part of the
weights' scales and the bias, which QLinearConv has for each channel anyway, and a DequantizeLinear along the channels
removes it again. With one range for all channels, the error of the embedded model's decoder is 1.2 times as large.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from sdrt_export.graphs.graph import MICROSOFT
from sdrt_export.graphs.stored import StoredGraph

__all__ = ["FLOAT", "Layer", "Span", "layers", "quantize", "stays_float"]

Array = np.ndarray[Any, Any]
_INT8 = ".int8"
_LEVELS = 255
_WEIGHT_LEVELS = 127
_BIAS_LEVELS = 1 << 30

FLOAT: Mapping[str, str] = {
    r"(^|\.)conv_(in|out)\.": "the first and the last convolution",
    r"^(post_)?quant_conv\.": "the VAE's 1x1 convolution of latents",
}
"""The weights that stay in float32, as patterns of their names, and the layers that they belong to."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A layer's range in calibration: the least and greatest input, and those of each output channel [C]."""

    low: float
    high: float
    out_low: Array | None = None
    out_high: Array | None = None


@dataclass(frozen=True)
class Layer:
    """A convolution or linear with constant weights. `name` is the weight's, the same in every graph of a component."""

    node: NodeProto
    name: str

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution. Otherwise it is a linear, whose weight is [in, out]."""
        return bool(self.node.op_type == "Conv")


def layers(graph: StoredGraph, *, every: bool = False) -> Iterator[Layer]:
    """Convolutions and linears of `graph` that are not in ``FLOAT``, or ``every`` one."""
    for node in graph.model.graph.node:
        if node.op_type in ("Conv", "MatMul") and node.input[1] in graph.initializers:
            name = node.input[1]
            if every or not stays_float(name):
                yield Layer(node, name)


def stays_float(name: str) -> bool:
    """Whether the weight ``name`` is one of ``FLOAT``."""
    return any(re.search(pattern, name) for pattern in FLOAT)


def quantize(graph: StoredGraph, spans: Mapping[str, Span]) -> list[str]:
    """Rewrite the layers of `graph` that are in ``spans``. Return the names of their weights.

    The weights are converted one at a time, when the graph is written.
    """
    done = [layer for layer in layers(graph) if layer.name in spans]
    by_node = {layer.node.output[0]: layer for layer in done}
    rewriter = _Rewriter(graph)
    nodes: list[NodeProto] = []
    for node in graph.model.graph.node:
        layer = by_node.get(node.output[0])
        if layer is not None:
            rewrite = rewriter.convolution if layer.is_convolution else rewriter.linear
            nodes += rewrite(layer, spans[layer.name])
        elif node.output[0] not in rewriter.absorbed:
            nodes.append(node)
    graph.nodes = nodes
    if not any(opset.domain == MICROSOFT for opset in graph.model.opset_import):
        graph.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return [layer.name for layer in done]


class _Rewriter:
    """Makes the nodes of layers in one graph. An activation that several layers read is quantised once.

    `absorbed` are the outputs of nodes that became part of a layer.
    """

    def __init__(self, graph: StoredGraph) -> None:
        self._graph = graph
        self._bytes: set[str] = set()
        self.absorbed: set[str] = set()
        self._uses: dict[str, list[NodeProto]] = {}
        for node in graph.model.graph.node:
            for name in node.input:
                self._uses.setdefault(name, []).append(node)
        self._results = {value.name for value in graph.model.graph.output}

    def convolution(self, layer: Layer, span: Span) -> list[NodeProto]:
        """The nodes of a convolution."""
        node, name, graph = layer.node, layer.name, self._graph
        scale, made = self._quantized(node.input[0], span)
        bias = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
        folded = _Folded.of(graph.array(name), bias, span, float(graph.array(scale)))
        self._to_integers(name, folded.steps, axis=0)
        inputs = [
            *(f"{node.input[0]}{_INT8}", scale, f"{node.input[0]}.zero", name),
            graph.constant(f"{name}.scale", (folded.steps / folded.out_scale).astype(np.float32)),
            graph.constant(f"{name}.zero", np.zeros(len(folded.steps), np.int8)),
            graph.constant("one", np.float32(1)),
            graph.constant("zero", np.uint8(0)),
            graph.constant(f"{name}.bias", folded.bias),
        ]
        kernel = helper.make_node("QLinearConv", inputs, [f"{name}{_INT8}"], name=f"{name}{_INT8}")
        kernel.attribute.extend(node.attribute)
        outputs = [
            graph.constant(f"{name}.out_scale", folded.out_scale.astype(np.float32)),
            graph.constant(f"{name}.out_zero", folded.out_zero.astype(np.uint8)),
        ]
        back = helper.make_node(
            "DequantizeLinear", [f"{name}{_INT8}", *outputs], node.output, name=node.name, axis=1
        )
        return [*made, kernel, back]

    def linear(self, layer: Layer, span: Span) -> list[NodeProto]:
        """The nodes of a linear, with its bias."""
        node, name, graph = layer.node, layer.name, self._graph
        scale, made = self._quantized(node.input[0], span)
        steps = _steps(graph.array(name), axis=1)
        self._to_integers(name, steps, axis=1)
        weight_scale = graph.constant(f"{name}.scale", steps.astype(np.float32))
        data = f"{node.input[0]}{_INT8}"
        inputs = [data, name, scale, weight_scale, f"{node.input[0]}.zero", ""]
        add, bias = self._bias_after(node)
        last = node if add is None else add
        if add is not None:
            inputs.append(bias)
            self.absorbed.add(add.output[0])
        kind = "MatMulIntegerToFloat"
        return [*made, helper.make_node(kind, inputs, last.output, name=last.name, domain=MICROSOFT)]

    def _quantized(self, name: str, span: Span) -> tuple[str, list[NodeProto]]:
        """The scale of a value in bytes, and the node that makes them, if there is none yet."""
        step, middle = _affine(np.float64(span.low), np.float64(span.high))
        scale = self._graph.constant(f"{name}.scale", np.float32(step))
        if name in self._bytes:
            return scale, []
        self._bytes.add(name)
        made = f"{name}{_INT8}"
        inputs = [name, scale, self._graph.constant(f"{name}.zero", np.uint8(middle))]
        return scale, [helper.make_node("QuantizeLinear", inputs, [made], name=made)]

    def _to_integers(self, name: str, steps: Array, *, axis: int) -> None:
        """Convert a weight to bytes when it is written."""
        graph = self._graph
        shape = [1] * len(graph.shape(name))
        shape[axis] = -1
        weight = graph.array(name)
        graph.convert(name, np.int8, lambda: np.rint(weight / steps.reshape(shape)).astype(np.int8))

    def _bias_after(self, node: NodeProto) -> tuple[NodeProto | None, str]:
        """The sum with a bias behind a product, and the bias, if that is the product's only use."""
        name = node.output[0]
        uses = self._uses.get(name, [])
        if len(uses) == 1 and uses[0].op_type == "Add" and name not in self._results:
            (other,) = (one for one in uses[0].input if one != name)
            if other in self._graph.initializers and len(self._graph.shape(other)) == 1:
                return uses[0], other
        return None, ""


@dataclass(frozen=True)
class _Folded:
    """A convolution kernel's parameters for each output channel, with y = (bytes − out_zero) · out_scale.

    The kernel's bytes are (x ∗ w + bias + out_scale · out_zero) / out_scale. The weights' scale includes the division.
    """

    steps: Array
    bias: Array
    out_scale: Array
    out_zero: Array

    @classmethod
    def of(cls, weight: Array, bias: Any, span: Span, step_in: float) -> _Folded:
        """``step_in`` is the input's step. The kernel takes the bias as a multiple of ``step_in · steps``."""
        scale, zero = _affine(span.out_low, span.out_high)
        offset = scale * zero + bias
        # If weights are tiny beside the bias, the steps are larger, so that the bias fits into int32.
        steps = np.maximum(_steps(weight, axis=0), np.abs(offset) / (step_in * _BIAS_LEVELS))
        return cls(steps, np.rint(offset / (step_in * steps)).astype(np.int32), scale, zero)


def _steps(weight: Array, *, axis: int) -> Array:
    """The step of each output channel's weights, symmetric about zero."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(others).astype(np.float64)
    # The output of a channel without weights is its bias, so any scale will do.
    steps: Array = np.where(largest > 0, largest, 1.0) / _WEIGHT_LEVELS
    return steps


def _affine(low: Any, high: Any) -> tuple[Any, Any]:
    """Step and zero point of bytes for the range from ``low`` to ``high``, in which zero is exact."""
    low, high = np.minimum(np.asarray(low, np.float64), 0.0), np.maximum(np.asarray(high, np.float64), 0.0)
    span = high - low
    # A channel that was always zero in calibration gets the widest range of all.
    step = np.where(span > 0, span, np.max(span) or 1.0) / _LEVELS
    return step, np.rint(-low / step)
