"""Writes small ONNX models, without `onnx`: a few operators, their weights, inputs and outputs, all in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sdrt.onnx.graph_file import MICROSOFT
from sdrt.onnx.nodes import opset
from sdrt.onnx.protobuf import message_field, number_field

__all__ = ["small_model"]

Axes = Sequence[int | str]

# Fields of onnx.proto3: ModelProto.ir_version, .opset_import and .graph; GraphProto.node, .name, .initializer, .input
# and .output; ValueInfoProto.name and .type; TypeProto.tensor_type; TypeProto.Tensor.elem_type, .shape;
# TensorShapeProto.dim; Dimension.dim_value and .dim_param; TensorProto.dims, .data_type, .name and .raw_data.
_IR_VERSION, _OPSET, _GRAPH = 1, 8, 7
_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
_VALUE_NAME, _VALUE_TYPE, _TENSOR, _ELEMENT, _SHAPE, _DIM, _DIM_VALUE, _DIM_NAME = 1, 2, 1, 1, 2, 1, 1, 2
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1


def small_model(
    name: str,
    nodes: Iterable[bytes],
    inputs: Mapping[str, Axes],
    outputs: Mapping[str, Axes],
    weights: Mapping[str, NDArray[np.float32]] | None = None,
) -> bytes:
    """The bytes of a model.

    Args:
        name: the graph's name.
        nodes: operators of opset 17, or of ONNX Runtime's own.
        inputs, outputs: their axes. An axis is a number, or a name if it is free.
        weights: the constants.
    """
    graph = b"".join(message_field(_NODE, one) for one in nodes) + message_field(_NAME, name)
    graph += b"".join(message_field(_INITIALIZER, _weight(*item)) for item in (weights or {}).items())
    graph += b"".join(message_field(_INPUT, _value(*item)) for item in inputs.items())
    graph += b"".join(message_field(_OUTPUT, _value(*item)) for item in outputs.items())
    versions = b"".join(message_field(_OPSET, opset(*one)) for one in (("", 17), (MICROSOFT, 1)))
    return number_field(_IR_VERSION, 8) + versions + message_field(_GRAPH, graph)


def _weight(name: str, array: NDArray[np.float32]) -> bytes:
    dims = b"".join(number_field(_DIMS, one) for one in array.shape)
    tensor = dims + number_field(_DATA_TYPE, _FLOAT) + message_field(_TENSOR_NAME, name)
    return tensor + message_field(_RAW_DATA, array.tobytes())


def _value(name: str, axes: Axes) -> bytes:
    shape = b"".join(message_field(_DIM, _axis(axis)) for axis in axes)
    tensor = number_field(_ELEMENT, _FLOAT) + message_field(_SHAPE, shape)
    return message_field(_VALUE_NAME, name) + message_field(_VALUE_TYPE, message_field(_TENSOR, tensor))


def _axis(axis: int | str) -> bytes:
    return number_field(_DIM_VALUE, axis) if isinstance(axis, int) else message_field(_DIM_NAME, axis)
