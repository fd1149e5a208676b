"""How ONNX Runtime arranges weights on this machine's CPU.

When it loads a graph, it stores convolution kernels in blocks, and right sides of products packed. Both depend on the
instructions that the CPU has, and on the version. Nothing in ONNX Runtime tells which arrangement it uses. So sdrt lets
it arrange a small graph, and looks at the result.
"""

from __future__ import annotations

import hashlib
import math
import platform
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.onnx.engine import ort
from sdrt.onnx.nodes import node
from sdrt.onnx.small_model import small_model

__all__ = ["cpu_layout", "keep_arranged"]


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
    """A model with a convolution and a product, whose weights are numbers that all differ."""
    return small_model(
        "cpu_layout",
        [node("Conv", ("image", "kernel"), "mapped"), node("MatMul", ("rows", "matrix"), "product")],
        {"image": (1, 64, 8, 8), "rows": (4, 64)},
        {"mapped": (1, 64, 6, 6), "product": (4, 96)},
        {"kernel": _distinct(64, 64, 3, 3), "matrix": _distinct(64, 96)},
    )


def _distinct(*shape: int) -> NDArray[np.float32]:
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
