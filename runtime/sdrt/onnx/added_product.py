"""Adds products of matrices to matrices, in ONNX Runtime.

NumPy's OpenBLAS keeps its threads spinning between products, also while other work runs, and its settings are those of
the whole process. A session has threads of its own, which sleep.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.onnx.engine import default_threads, ort
from sdrt.onnx.nodes import node
from sdrt.onnx.small_model import small_model

__all__ = ["AddedProduct"]

Floats = NDArray[np.float32]


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
    inputs = {"rows": "mr", "columns": "rn", "to": "mn"}
    return small_model("added_product", [node("Gemm", inputs, "sum")], inputs, {"sum": "mn"})
