"""TensorRT's libraries, which ONNX Runtime's provider is linked with and does not look for in NVIDIA's wheels."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

__all__ = ["LIBRARIES", "load_tensorrt"]

LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10")
"""What the provider of onnxruntime-gpu 1.22 to 1.31 is linked with on Linux."""


@cache
def load_tensorrt() -> str | None:
    """Load TensorRT 10, of the system or of the wheel `tensorrt-cu13` (`-cu12`); its version, None without it.

    Once loaded, the provider finds them by their names. "unknown" is the version where another system names them
    otherwise, and the provider looks for them itself.
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
    # 8601 is 8.6.1; since TensorRT 10 it is 101303.
    major, rest = divmod(number, 10_000) if number >= 100_000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"
