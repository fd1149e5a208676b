"""How ONNX Runtime arranges weights on this machine's CPU.

When it loads a graph, it stores convolution kernels in blocks, and right sides of products packed. Both depend on the
instructions that the CPU has, and on the version. Nothing in ONNX Runtime tells which arrangement it uses. So sdrt lets
it arrange a small graph, and looks at the result.
"""

from __future__ import annotations

import hashlib
import platform
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.onnx.engine import ort
from sdrt.onnx.protobuf import message_field, number_field

__all__ = ["cpu_layout", "keep_arranged"]

# Fields of onnx.proto3: ModelProto.ir_version, .opset_import and .graph; OperatorSetIdProto.version; GraphProto.node,
# .name, .initializer, .input and .output; NodeProto.input, .output and .op_type; ValueInfoProto.name and .type;
# TypeProto.tensor_type; TypeProto.Tensor.elem_type, .shape; TensorShapeProto.dim; Dimension.dim_value;
# TensorProto.dims, .data_type, .name and .raw_data.
_IR_VERSION, _OPSET, _GRAPH, _VERSION = 1, 8, 7, 2
_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP = 1, 2, 4
_VALUE_NAME, _VALUE_TYPE, _TENSOR, _ELEMENT, _SHAPE, _DIM, _DIM_VALUE = 1, 2, 1, 1, 2, 1, 1
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1


def keep_arranged(options: Any, graph: Path, weights: str) -> None:
    """Let a session with these `SessionOptions` write the graph as it runs it, and its weights as it reads them.

    Args:
        options: `SessionOptions`.
        graph: the file to write.
        weights: the name of the file for the weights, beside `graph`.
    """
    options.optimized_model_filepath = str(graph)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", weights),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)


@cache
def cpu_layout() -> str:
    """A text that differs for arrangements that differ.

    It covers the version of ONNX Runtime, the CPU as the system describes it, and the bytes that come of a convolution
    and a product.
    """
    found = hashlib.sha256(f"{ort.__version__}\n{platform.machine()}\n{_cpu()}".encode())
    with tempfile.TemporaryDirectory(prefix="sdrt-") as folder:
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        keep_arranged(options, Path(folder, "graph.onnx"), "weights")
        ort.InferenceSession(_model(), options, ["CPUExecutionProvider"])
        for path in sorted(Path(folder).iterdir()):
            found.update(path.read_bytes())
    return found.hexdigest()


def _cpu() -> str:
    """The CPU's name and instructions, as far as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.partition("\t")[0].strip() in wanted}))


def _model() -> bytes:
    """A model with a convolution and a product."""
    graph = _node("Conv", "image", "kernel", "mapped") + _node("MatMul", "rows", "matrix", "product")
    graph += message_field(_NAME, "cpu_layout")
    graph += _weight("kernel", 64, 64, 3, 3) + _weight("matrix", 64, 96)
    graph += message_field(_INPUT, _value("image", 1, 64, 8, 8)) + message_field(
        _INPUT, _value("rows", 4, 64)
    )
    graph += message_field(_OUTPUT, _value("mapped", 1, 64, 6, 6)) + message_field(
        _OUTPUT, _value("product", 4, 96)
    )
    opset = message_field(_OPSET, number_field(_VERSION, 17))
    return number_field(_IR_VERSION, 8) + opset + message_field(_GRAPH, graph)


def _node(op: str, first: str, second: str, output: str) -> bytes:
    names = message_field(_NODE_INPUT, first) + message_field(_NODE_INPUT, second)
    return message_field(_NODE, names + message_field(_NODE_OUTPUT, output) + message_field(_NODE_OP, op))


def _weight(name: str, *shape: int) -> bytes:
    """A weight of numbers that all differ."""
    array: NDArray[np.float32] = np.arange(np.prod(shape), dtype=np.float32)
    dims = b"".join(number_field(_DIMS, one) for one in shape)
    tensor = dims + number_field(_DATA_TYPE, _FLOAT) + message_field(_TENSOR_NAME, name)
    return message_field(_INITIALIZER, tensor + message_field(_RAW_DATA, array.tobytes()))


def _value(name: str, *shape: int) -> bytes:
    dims = b"".join(message_field(_DIM, number_field(_DIM_VALUE, one)) for one in shape)
    tensor = number_field(_ELEMENT, _FLOAT) + message_field(_SHAPE, dims)
    return message_field(_VALUE_NAME, name) + message_field(_VALUE_TYPE, message_field(_TENSOR, tensor))
