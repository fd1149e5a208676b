"""ONNX Runtime, and the only module that imports it: what this build and this machine offer."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from sdrt.common.extras import install_command
from sdrt.common.interrupt import was_interrupted
from sdrt.common.notices import Notices
from sdrt.errors import ProviderError
from sdrt.onnx.cuda_libraries import has_cudnn, load_cuda_libraries
from sdrt.onnx.providers import AUTO, PROVIDERS, SessionConfig

# Version 1.32 writes an identifier of the device into the user's home, and events beside it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

    ort.InferenceSession  # noqa: B018  # what a removal that left a folder behind lacks
except (ImportError, AttributeError, OSError) as error:
    if was_interrupted(error):
        raise KeyboardInterrupt from error
    raise ProviderError(
        f"ONNX Runtime cannot be imported ({error}): {install_command('cpu')}, or [gpu] for NVIDIA"
    ) from error

__all__ = [
    "FAILURES",
    "available_providers",
    "cuda_works",
    "openvino_devices",
    "ort",
    "preload_cuda",
    "require_cudnn",
    "require_sound_recordings",
    "settle",
    "tells_placement",
]

# ONNX Runtime's exceptions share no base class, and older builds lack some of them.
_ORT_NAMES = (
    *("DeviceReset", "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf"),
    *("ModelLoadCanceled", "ModelRequiresCompilation", "NoModel", "NoSuchFile", "NotFound"),
    *("NotImplemented", "RuntimeException"),
)
FAILURES: tuple[type[BaseException], ...] = (
    MemoryError,
    RuntimeError,
    ValueError,
    *(getattr(ort_state, name) for name in _ORT_NAMES if hasattr(ort_state, name)),
)
# OpenVINO's, which 1.22 takes and computes in f32 all the same.
_SINCE_1_24 = ("precision", "load_config")


def available_providers() -> tuple[str, ...]:
    """Our names of the providers that this ONNX Runtime build offers."""
    offered = ort.get_available_providers()
    return tuple(name for name, row in PROVIDERS.items() if row.ort in offered)


def settle(config: SessionConfig, notices: Notices) -> SessionConfig:
    """`config` with "auto" decided: cuda where this build offers it and a device works, else cpu.

    Raises `ProviderError` with the fix when this build lacks the provider that was asked for.
    """
    offered = available_providers()
    if config.name == AUTO:
        works = "cuda" in offered and cuda_works()
        if "cuda" in offered and not works:
            notices.warn(
                "running on the CPU: this onnxruntime has CUDA, and finds no working device or lacks a library; "
                "sdrt doctor says which, provider cpu silences this"
            )
        return replace(config, provider="cuda" if works else "cpu")
    if not tells_placement() and (
        ignored := [name for name in _SINCE_1_24 if name in config.provider_options]
    ):
        raise ProviderError(
            f"openvino's option {ignored[0]} needs onnxruntime-openvino 1.24 or later: {ort.__version__} ignores what "
            f"it does not support, with only a line in its log: {install_command('openvino')}"
        )
    if config.name in offered:
        return config
    row = PROVIDERS[config.name]
    raise ProviderError(
        f"onnxruntime {ort.__version__} as installed has no {config.name} provider ({row.ort}), "
        f"it offers {', '.join(offered)}: pip uninstall -y onnxruntime; {install_command(row.extra)}"
    )


@cache
def cuda_works() -> bool:
    """Whether the first CUDA device can hold a number, which takes its driver and libraries, and cuDNN is here.

    Since 1.28 ONNX Runtime looks for cuDNN no sooner than in the first convolution.
    """
    preload_cuda()
    try:
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, "cuda", 0)
    except FAILURES:
        return False
    return has_cudnn()


def openvino_devices() -> list[str]:
    """What OpenVINO finds to run on; nothing where the build does not tell."""
    return list(getattr(ort_state, "get_available_openvino_device_ids", list)())


def tells_placement() -> bool:
    """Whether a session tells which provider took which node, as it does since 1.24."""
    return hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")


def require_cudnn() -> None:
    """Raise `ProviderError` where the loader does not find cuDNN: the first convolution would fail."""
    if not has_cudnn():
        raise ProviderError(
            f"cuda needs cuDNN 9, whose library (libcudnn.so.9) the loader does not find: {install_command('gpu')}, "
            "which brings it, or name its folder in LD_LIBRARY_PATH"
        )


def require_sound_recordings() -> None:
    """Raise `ProviderError` where recordings of several shapes overwrite one another.

    A replay of ONNX Runtime before 1.30 reads arrays of pointers (Concat's) again from memory that the run of another
    shape has used since: https://github.com/microsoft/onnxruntime/pull/32121.
    """
    if _version() < (1, 30):
        raise ProviderError(
            f"enable_cuda_graph needs onnxruntime-gpu 1.30 or later: {ort.__version__} replays what it recorded with "
            "another size's pointers: pip install --upgrade 'onnxruntime-gpu[cuda,cudnn]>=1.30' (CUDA 13), or leave "
            "the option out"
        )


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in ort.__version__.split(".")[:2] if part.isdigit())


@cache
def preload_cuda() -> None:
    """Load the CUDA and cuDNN libraries of the `nvidia-*` wheels, which the loader cannot find."""
    if hasattr(ort, "preload_dlls"):
        load_cuda_libraries(Path(ort.__file__).parent)
        # It prints what it does not find, and stdout is the caller's.
        with redirect_stdout(sys.stderr):
            ort.preload_dlls()
