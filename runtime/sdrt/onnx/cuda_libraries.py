"""CUDA and cuDNN from NVIDIA's wheels, in folders where ONNX Runtime does not look."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["has_cudnn", "load_cuda_libraries"]

_NAMES = ("cudart", "cublasLt", "cublas", "nvrtc", "nvJitLink", "curand", "cufft", "cudnn_graph", "cudnn")
"""The libraries that ONNX Runtime's CUDA provider is linked with, each after its own dependencies."""


def load_cuda_libraries(onnxruntime: Path) -> list[Path]:
    """Load CUDA and cuDNN from all folders of `sys.path` except that of the package `onnxruntime`. Linux only.

    ONNX Runtime's `preload_dlls` looks in its own folder, then asks the loader, which finds loaded libraries by name.
    If torch is installed in another folder, as in another layer of a container, its libraries are there.

    Returns the libraries that were loaded.
    """
    if sys.platform != "linux":
        return []
    return [library for library in _found(onnxruntime.parent) if _load(library)]


def has_cudnn() -> bool:
    """Whether the loader finds cuDNN 9, loaded already or on its path. Always true outside of Linux."""
    return sys.platform != "linux" or _load(Path("libcudnn.so.9"))


def _found(beside: Path) -> Iterator[Path]:
    roots = dict.fromkeys(Path(root, "nvidia") for root in sys.path if root and Path(root) != beside)
    for root in roots:
        for name in _NAMES:
            # CUDA 12's wheels have nvidia/cublas/lib, CUDA 13's have nvidia/cu13/lib.
            yield from sorted(root.glob(f"*/lib/lib{name}.so.*"))


def _load(library: Path) -> bool:
    try:
        ctypes.CDLL(str(library))
    except OSError:
        return False
    return True
