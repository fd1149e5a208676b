"""The only module that imports ONNX Runtime: what this build and this machine offer."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from sdrt.common.control_groups import usable_cpus
from sdrt.common.extras import install_command, is_installed
from sdrt.common.interrupt import stop_if_asked, was_interrupted
from sdrt.common.limits import advice_on_limits, is_of_memory
from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError, ProviderError
from sdrt.onnx.cuda_libraries import has_cudnn, load_cuda_libraries
from sdrt.onnx.providers import AUTO, PROVIDERS, SessionConfig

# Without this, version 1.32 writes an identifier of the device and events into the user's home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

    ort.InferenceSession  # noqa: B018  # missing if pip left an empty folder when it removed the package
except (ImportError, AttributeError, OSError, MemoryError) as error:
    stop_if_asked()
    if was_interrupted(error):
        raise KeyboardInterrupt from error
    if is_of_memory(error):
        raise OutOfMemoryError.advised(
            f"ONNX Runtime cannot be loaded into memory ({error})", advice_on_limits()
        ) from error
    raise ProviderError.advised(
        f"ONNX Runtime cannot be imported ({error})", f"{install_command('cpu')}, or [gpu] for NVIDIA"
    ) from error

__all__ = [
    "FAILURES",
    "available_providers",
    "can_pass_weights",
    "cuda_works",
    "default_threads",
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
# OpenVINO's options that earlier versions accept and ignore.
_SINCE_1_24 = ("precision", "load_config")


def available_providers() -> tuple[str, ...]:
    """The providers that this build of ONNX Runtime offers, by sdrt's names."""
    offered = ort.get_available_providers()
    return tuple(name for name, row in PROVIDERS.items() if row.ort in offered)


def settle(config: SessionConfig, notices: Notices) -> SessionConfig:
    """`config` with "auto" resolved (cuda if this build offers it and a device works, else cpu), and threads bounded.

    Raises `ProviderError` with the remedy if this build lacks the provider.
    """
    offered = available_providers()
    config = _bounded(config, notices)
    if config.name == AUTO:
        works = "cuda" in offered and cuda_works()
        if "cuda" in offered and not works:
            notices.warn(
                "running on the CPU: this onnxruntime supports CUDA, but finds no working device or lacks a library; "
                "sdrt doctor says which. Choose provider cpu to silence this warning"
            )
        return replace(config, provider="cuda" if works else "cpu")
    if not tells_placement() and (
        ignored := [name for name in _SINCE_1_24 if name in config.provider_options]
    ):
        raise ProviderError.advised(
            f"openvino's option {ignored[0]} needs onnxruntime-openvino 1.24 or later; "
            f"{ort.__version__} ignores it",
            install_command("openvino"),
            provider=config.provider,
            argument=ignored[0],
        )
    row = PROVIDERS[config.name]
    if (
        config.name in offered
        or config.provider_library is not None
        or (row.package and is_installed(row.package))
    ):
        # Which devices the library of a plug-in offers is known only once it is loaded, for the first session.
        return config
    if row.package:
        raise ProviderError.advised(
            f"provider {config.name} is in the package {row.package}, which is not installed",
            f"{install_command(row.extra)}; it needs {row.needs}",
            provider=config.provider,
        )
    raise ProviderError.advised(
        f"the installed onnxruntime {ort.__version__} has no {config.name} provider ({row.ort}); "
        f"it offers {', '.join(offered)}",
        f"pip uninstall -y onnxruntime; {install_command(row.extra)}",
        provider=config.provider,
    )


def _bounded(config: SessionConfig, notices: Notices) -> SessionConfig:
    """`config` with no more threads than CPUs: each would wait for the others, which takes many times as long."""
    usable, asked = usable_cpus(), config.threads
    if asked is None or usable is None or asked <= usable:
        return config
    notices.warn(f"threads is {asked}, but this process may use {usable} CPUs, so sdrt uses {usable} threads")
    return replace(config, threads=usable)


def default_threads() -> int:
    """The number of threads of a session without a given number. 0 lets ONNX Runtime use every core.

    ONNX Runtime knows the CPUs of this process, but not the share of their time that a container may use.
    """
    usable = usable_cpus()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else usable
    return usable if usable is not None and allowed is not None and usable < allowed else 0


@cache
def cuda_works() -> bool:
    """Whether the first CUDA device can hold a number, which needs its driver and libraries, and cuDNN is found.

    Since version 1.28, ONNX Runtime looks for cuDNN only in the first convolution.
    """
    preload_cuda()
    try:
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, "cuda", 0)
    except FAILURES:
        return False
    return has_cudnn()


def openvino_devices() -> list[str]:
    """The devices that OpenVINO finds. Empty if this build does not report them."""
    return list(getattr(ort_state, "get_available_openvino_device_ids", list)())


def tells_placement() -> bool:
    """Whether sessions report which provider runs which node, as they do since version 1.24."""
    return hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")


def can_pass_weights() -> bool:
    """Whether sessions can be given the content of weight files."""
    return hasattr(ort.SessionOptions, "add_external_initializers_from_files_in_memory")


def require_cudnn() -> None:
    """Raise `ProviderError` if the loader does not find cuDNN: the first convolution would fail."""
    if not has_cudnn():
        raise ProviderError.advised(
            "cuda needs cuDNN 9, but the loader does not find libcudnn.so.9",
            f"install it with {install_command('gpu')}, or add its folder to LD_LIBRARY_PATH",
            provider="cuda",
        )


def require_sound_recordings() -> None:
    """Raise `ProviderError` if recordings of different shapes overwrite one another, as they do before 1.30.

    A replay reads Concat's arrays of pointers from memory that a run of another shape may have reused since:
    https://github.com/microsoft/onnxruntime/pull/32121.
    """
    if _version() < (1, 30):
        raise ProviderError.advised(
            f"enable_cuda_graph needs onnxruntime-gpu 1.30 or later; {ort.__version__} mixes up the "
            "recordings of different sizes",
            "pip install --upgrade 'onnxruntime-gpu[cuda,cudnn]>=1.30' (CUDA 13), or leave the option out",
            provider="cuda",
            argument="enable_cuda_graph",
        )


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in ort.__version__.split(".")[:2] if part.isdigit())


@cache
def preload_cuda() -> None:
    """Load CUDA and cuDNN from the `nvidia-*` wheels, where the loader does not look."""
    if hasattr(ort, "preload_dlls"):
        load_cuda_libraries(Path(ort.__file__).parent)
        # It prints the libraries that it does not find, and stdout belongs to the caller.
        with redirect_stdout(sys.stderr):
            ort.preload_dlls()
