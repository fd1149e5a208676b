"""Names of devices and of execution providers in other programs."""

from __future__ import annotations

from sdrt.foreign.word import Word

__all__ = ["DEVICES"]

_NONE = "sdrt has no provider for it; cpu runs everywhere"
_PORTABLE = "with a model exported with --target portable"

DEVICES = (
    Word("cpu, cuda, cuda:1", "devices", "the same", works=True),
    Word("CPUExecutionProvider, CUDAExecutionProvider, …", "ONNX Runtime's names", "the same", works=True),
    Word("gpu", "a GPU", "write cuda"),
    Word("mps", "Apple's GPU", f"write coreml, {_PORTABLE}"),
    Word("xpu", "Intel's GPU", f"write openvino, {_PORTABLE}"),
    Word("rocm", "AMD's GPU", _NONE),
    Word("dml", "DirectML", _NONE),
    Word("directml", "DirectML", _NONE),
    Word(
        "*ExecutionProvider",
        "another provider of ONNX Runtime",
        "give its library as well, with provider_library (--provider-library)",
    ),
)
"""What `provider` means, and what people write for it."""
