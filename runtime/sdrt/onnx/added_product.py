"""Adds products of matrices to matrices, in ONNX Runtime.

NumPy's OpenBLAS keeps its threads spinning between products, also while other work runs, and its settings are those of
the whole process. A session has threads of its own, which sleep.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.onnx.engine import default_threads, ort
from sdrt.onnx.protobuf import message_field, number_field

__all__ = ["AddedProduct"]

Floats = NDArray[np.float32]
# Fields of onnx.proto3: ModelProto.ir_version, .opset_import and .graph; OperatorSetIdProto.version; GraphProto.node,
# .name, .input and .output; NodeProto.input, .output and .op_type; ValueInfoProto.name and .type;
# TypeProto.tensor_type; TypeProto.Tensor.elem_type, .shape; TensorShapeProto.dim; Dimension.dim_param.
_IR_VERSION, _OPSET, _GRAPH, _VERSION = 1, 8, 7, 2
_NODE, _NAME, _INPUT, _OUTPUT = 1, 2, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP = 1, 2, 4
_VALUE_NAME, _VALUE_TYPE, _TENSOR, _ELEMENT, _SHAPE, _DIM, _DIM_NAME = 1, 2, 1, 1, 2, 1, 2
_FLOAT = 1


class AddedProduct:
    """``to += rows @ columns`` for matrices of any size, all in float32."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = default_threads()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(_model(), options, ["CPUExecutionProvider"])

    def __call__(self, to: Floats, rows: Floats, columns: Floats) -> None:
        """Add the product of `rows` [m, r] and `columns` [r, n] to the contiguous matrix `to` [m, n], in place."""
        binding = self._session.io_binding()
        # The kernel copies `to` onto itself, and adds the product there.
        whole = _value(to)
        binding.bind_ortvalue_input("to", whole)
        binding.bind_ortvalue_input("rows", _value(rows))
        binding.bind_ortvalue_input("columns", _value(columns))
        binding.bind_ortvalue_output("sum", whole)
        self._session.run_with_iobinding(binding)


def _value(array: Floats) -> Any:
    """An array for ONNX Runtime, which uses its memory if it is contiguous."""
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, np.float32))


def _model() -> bytes:
    """The model: one Gemm, whose alpha and beta are 1 by default."""
    inputs = ("rows", "columns", "to")
    node = b"".join(message_field(_NODE_INPUT, name) for name in inputs)
    node += message_field(_NODE_OUTPUT, "sum") + message_field(_NODE_OP, "Gemm")
    graph = message_field(_NODE, node) + message_field(_NAME, "added_product")
    graph += b"".join(
        message_field(_INPUT, _matrix(name, *axes))
        for name, axes in zip(inputs, (("m", "r"), ("r", "n"), ("m", "n")), strict=True)
    )
    graph += message_field(_OUTPUT, _matrix("sum", "m", "n"))
    opset = message_field(_OPSET, number_field(_VERSION, 17))
    return number_field(_IR_VERSION, 8) + opset + message_field(_GRAPH, graph)


def _matrix(name: str, *axes: str) -> bytes:
    shape = b"".join(message_field(_DIM, message_field(_DIM_NAME, axis)) for axis in axes)
    tensor = number_field(_ELEMENT, _FLOAT) + message_field(_SHAPE, shape)
    return message_field(_VALUE_NAME, name) + message_field(_VALUE_TYPE, message_field(_TENSOR, tensor))
