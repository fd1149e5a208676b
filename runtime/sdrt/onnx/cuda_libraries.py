"""CUDA's and cuDNN's libraries of NVIDIA's wheels, where ONNX Runtime does not look for them itself."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["has_cudnn", "load_cuda_libraries"]

_NAMES = ("cudart", "cublasLt", "cublas", "nvrtc", "nvJitLink", "curand", "cufft", "cudnn_graph", "cudnn")
"""What its provider is linked with, each after what it needs itself."""


def load_cuda_libraries(onnxruntime: Path) -> list[Path]:
    """Load them from every folder of `sys.path` but the one that `onnxruntime` lies in; those that could be loaded.

    ONNX Runtime's own `preload_dlls` looks beside itself, then asks the loader, which finds by its name what is loaded.
    A torch that was installed elsewhere, as in another layer of an image, has them elsewhere. Linux only.
    """
    if sys.platform != "linux":
        return []
    return [library for library in _found(onnxruntime.parent) if _load(library)]


def has_cudnn() -> bool:
    """Whether the loader finds cuDNN 9, among what is loaded or on its path; taken for granted but on Linux."""
    return sys.platform != "linux" or _load(Path("libcudnn.so.9"))


def _found(beside: Path) -> Iterator[Path]:
    roots = dict.fromkeys(Path(root, "nvidia") for root in sys.path if root and Path(root) != beside)
    for root in roots:
        for name in _NAMES:
            # nvidia/cublas/lib of CUDA 12's wheels, nvidia/cu13/lib of 13's.
            yield from sorted(root.glob(f"*/lib/lib{name}.so.*"))


def _load(library: Path) -> bool:
    try:
        ctypes.CDLL(str(library))
    except OSError:
        return False
    return True
