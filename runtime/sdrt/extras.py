"""Which extra of this distribution brings a module that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

__all__ = ["EXTRAS", "missing_modules"]

EXTRAS: Mapping[str, str] = {
    "onnxruntime": "cpu",
    "optimum": "optimum",
    **dict.fromkeys(
        ("accelerate", "diffusers", "onnx", "onnx_ir", "onnxscript", "safetensors", "torch", "transformers"),
        "export",
    ),
}
"""Top-level module → extra of `sdrt` that brings it."""


def missing_modules(extra: str) -> list[str]:
    """Modules of `extra` that are not installed; nothing is imported to find out."""
    return [name for name, owner in EXTRAS.items() if owner == extra and find_spec(name) is None]
