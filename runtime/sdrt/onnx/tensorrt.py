"""TensorRT's libraries, which ONNX Runtime does not look for in NVIDIA's wheels."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

__all__ = ["LIBRARIES", "load_tensorrt"]

LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10")
"""The libraries that the provider of onnxruntime-gpu 1.22 to 1.31 is linked with on Linux."""


@cache
def load_tensorrt() -> str | None:
    """Load TensorRT 10 from the system or the wheel `tensorrt-cu13` (`-cu12`), where the provider then finds it.

    Returns its version, None without TensorRT. Outside of Linux, where the provider has to find the libraries itself,
    the version is "unknown".
    """
    if sys.platform != "linux":
        return "unknown"
    loaded = [_load(name) for name in LIBRARIES]
    return _version(loaded[0]) if loaded[0] and all(loaded) else None


def _load(name: str) -> ctypes.CDLL | None:
    wheels = (str(Path(root, "tensorrt_libs", name)) for root in sys.path if root)
    for candidate in (name, *wheels):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    return None


def _version(library: ctypes.CDLL) -> str:
    number = int(library.getInferLibVersion())
    # 8601 is 8.6.1. Since TensorRT 10 the form is 101303.
    major, rest = divmod(number, 10_000) if number >= 100_000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"
