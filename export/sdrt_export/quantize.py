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
import onnx_ir as ir

__all__ = ["FLOAT", "Layer", "Span", "constant", "layers", "quantize", "stays_float"]

Array = np.ndarray[Any, Any]
_CONTRIB = "com.microsoft"
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
    """A convolution or linear with constant weights, and whether it can be rewritten."""

    node: ir.Node
    weight: ir.Value

    @property
    def name(self) -> str:
        """The weight's name, which is the same in every graph of a component."""
        return str(self.weight.name)

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution. Otherwise it is a linear, whose weight is [in, out]."""
        return self.node.op_type == "Conv"


def layers(model: ir.Model, *, every: bool = False) -> Iterator[Layer]:
    """Convolutions and linears of ``model`` that are not in ``FLOAT``, or ``every`` one."""
    for node in model.graph:
        if node.op_type in ("Conv", "MatMul"):
            weight = node.inputs[1]
            if weight is None or not weight.is_initializer():
                continue
            if every or not stays_float(str(weight.name)):
                yield Layer(node, weight)


def stays_float(name: str) -> bool:
    """Whether the weight ``name`` is one of ``FLOAT``."""
    return any(re.search(pattern, name) for pattern in FLOAT)


def quantize(model: ir.Model, spans: Mapping[str, Span]) -> list[str]:
    """Rewrite the layers of ``model`` that are in ``spans``. Return the names of their weights.

    The weights are converted one at a time, when the model is written.
    """
    model.graph.opset_imports[_CONTRIB] = 1
    rewriter = _Rewriter(model.graph)
    done = [layer for layer in list(layers(model)) if layer.name in spans]
    for layer in done:
        (rewriter.convolution if layer.is_convolution else rewriter.linear)(layer, spans[layer.name])
    return [layer.name for layer in done]


class _Rewriter:
    """Rewrites one graph. An activation that several layers read is quantised once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._bytes: dict[str, tuple[ir.Value, ir.Value, ir.Value]] = {}

    def convolution(self, layer: Layer, span: Span) -> None:
        node, weight, name, graph = layer.node, layer.weight, layer.name, self._graph
        data, scale, zero = self._quantized(node, span)
        bias = _values(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0.0
        folded = _Folded.of(_values(weight), bias, span, float(_values(scale)))
        inputs = [
            *(data, scale, zero, self._integers(weight, folded.steps, axis=0)),
            constant(graph, f"{name}.scale", (folded.steps / folded.out_scale).astype(np.float32)),
            constant(graph, f"{name}.zero", np.zeros(len(folded.steps), np.int8)),
            constant(graph, "one", np.float32(1)),
            constant(graph, "zero", np.uint8(0)),
            constant(graph, f"{name}.bias", folded.bias),
        ]
        made = self._before(node, "QLinearConv", inputs, dict(node.attributes), name=f"{name}.int8")
        outputs = [
            constant(graph, f"{name}.out_scale", folded.out_scale.astype(np.float32)),
            constant(graph, f"{name}.out_zero", folded.out_zero.astype(np.uint8)),
        ]
        self._replace(node, "DequantizeLinear", [made, *outputs], {"axis": ir.AttrInt64("axis", 1)})

    def linear(self, layer: Layer, span: Span) -> None:
        node, weight, name = layer.node, layer.weight, layer.name
        data, scale, zero = self._quantized(node, span)
        steps = _steps(_values(weight), axis=1)
        inputs: list[ir.Value | None] = [
            *(data, self._integers(weight, steps, axis=1), scale),
            constant(self._graph, f"{name}.scale", steps.astype(np.float32)),
            *(zero, None),
        ]
        last, bias = _bias_after(node)
        if bias is not None:
            inputs.append(bias)
        self._replace(last, "MatMulIntegerToFloat", inputs, {}, domain=_CONTRIB)
        if last is not node:
            self._graph.remove(node, safe=True)

    def _quantized(self, node: ir.Node, span: Span) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The node's first input in bytes, its scale and its zero point."""
        value = node.inputs[0]
        assert value is not None
        key = str(value.name)
        if key not in self._bytes:
            step, middle = _affine(np.float64(span.low), np.float64(span.high))
            scale = constant(self._graph, f"{key}.scale", np.float32(step))
            zero = constant(self._graph, f"{key}.zero", np.uint8(middle))
            made = self._before(node, "QuantizeLinear", [value, scale, zero], {}, name=f"{key}.int8")
            self._bytes[key] = (made, scale, zero)
        return self._bytes[key]

    def _integers(self, weight: ir.Value, steps: Array, *, axis: int) -> ir.Value:
        """``weight`` itself, which is converted to bytes when it is written."""
        tensor = weight.const_value
        assert tensor is not None
        shape = [1] * len(tensor.shape)
        shape[axis] = -1
        weight.const_value = ir.LazyTensor(
            lambda: ir.tensor(np.rint(tensor.numpy() / steps.reshape(shape)).astype(np.int8)),
            dtype=ir.DataType.INT8,
            shape=ir.Shape(tuple(tensor.shape.numpy())),
            name=weight.name,
        )
        weight.type = ir.TensorType(ir.DataType.INT8)
        return weight

    def _before(
        self, node: ir.Node, op: str, inputs: list[Any], attributes: dict[str, Any], *, name: str
    ) -> ir.Value:
        made = ir.Node("", op, inputs, attributes=list(attributes.values()), name=name)
        made.outputs[0].name, made.outputs[0].type = name, ir.TensorType(ir.DataType.UINT8)
        self._graph.insert_before(node, made)
        return made.outputs[0]

    def _replace(
        self, node: ir.Node, op: str, inputs: list[Any], attributes: dict[str, Any], domain: str = ""
    ) -> None:
        """Replace ``node`` by another node. The output keeps its name."""
        old = node.outputs[0]
        made = ir.Node(domain, op, inputs, attributes=list(attributes.values()), name=node.name)
        new = made.outputs[0]
        new.name, new.shape, new.type = old.name, old.shape, old.type
        self._graph.insert_before(node, made)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)


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


def _bias_after(node: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """The last node of a linear, and its bias, if the only use of the product is a sum with a bias."""
    uses = list(node.outputs[0].uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add":
        add = uses[0].node
        other = add.inputs[1 - uses[0].idx]
        if other is not None and other.is_initializer() and len(other.shape or ()) == 1:
            return add, other
    return node, None


def constant(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    """The initializer ``name`` of ``graph``, which is made from ``array`` if it does not exist."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.asarray(array), name=name)
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(np.shape(array))
        graph.register_initializer(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
    return graph.initializers[name]


def _values(value: ir.Value) -> Array:
    tensor = value.const_value
    assert tensor is not None
    array: Array = np.asarray(tensor.numpy())
    return array


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
