"""Checks of the installed ONNX Runtime and of the libraries that its providers need."""

from __future__ import annotations

import ctypes
import platform
import re
import site
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from sdrt.cli.doctor.check_result import Finding, Status
from sdrt.cli.doctor.linked import linked_libraries
from sdrt.common.extras import install_command, is_installed
from sdrt.errors import ProviderError, SdrtError
from sdrt.onnx.providers import PROVIDERS
from sdrt.onnx.tensorrt import LIBRARIES, load_tensorrt

__all__ = ["check_onnxruntime", "missing_libraries"]

_CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"
_NEWEST_CUDA = 13
# The names of NVIDIA's wheels for CUDA 13. Those for CUDA 12 end in "-cu12".
_NVIDIA_WHEELS = {
    "cublas": "nvidia-cublas",
    "cublasLt": "nvidia-cublas",
    "cudart": "nvidia-cuda-runtime",
    "cufft": "nvidia-cufft",
    "curand": "nvidia-curand",
    "nvrtc": "nvidia-cuda-nvrtc",
}
WHEELS = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn"),
    *(
        "onnxruntime-training",
        "onnxruntime-silicon",
        "onnxruntime-rocm",
        "onnxruntime-migraphx",
        "ort-nightly",
    ),
    *("ort-nightly-gpu", "onnxruntime-cann", "onnxruntime-webgpu"),
)
_OURS = {row.ort: name for name, row in PROVIDERS.items()}
CUDNN_LIBRARY = "libcudnn.so.9"
DRIVER_LIBRARY = "libcuda.so.1"


def check_onnxruntime() -> Iterator[Finding]:
    """Report the wheels, versions and providers of ONNX Runtime, then check what each provider needs."""
    wheels = installed_wheels()
    if len(wheels) > 1:
        yield Finding(
            name="onnxruntime wheels",
            detail=f"{', '.join(wheels)} are installed together and overwrite each other's files",
            status=Status.WARNING,
            remedy=f"pip uninstall -y {' '.join(wheels)}, then {install_command('cpu')}, or [gpu]",
        )
    try:
        from sdrt.onnx.engine import available_providers
    except SdrtError as error:
        yield Finding(name="onnxruntime", detail=str(error), status=Status.ERROR, exit_code=error.exit_code)
        return
    providers = available_providers()
    origin = ", ".join(f"{name} {version}" for name, version in wheels.items()) or "of unknown origin"
    yield Finding(name="onnxruntime", detail=f"{origin}; providers {', '.join(providers)}")
    yield from check_cuda(providers)
    yield from check_tensorrt(providers)
    yield from check_openvino(providers)
    yield from check_libraries()
    yield from check_missing(providers)


def installed_wheels() -> dict[str, str]:
    """Installed distributions that contain the module `onnxruntime`, with their versions."""
    found = {}
    for name in WHEELS:
        try:
            wheel = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        # An interrupted uninstall leaves a record without content.
        found[name] = wheel.version if wheel.read_text("METADATA") else "of unknown version"
    return found


def check_cuda(providers: tuple[str, ...]) -> Iterator[Finding]:
    """Check the driver, CUDA and cuDNN if this build needs them. Only Linux uses these library names."""
    if platform.system() != "Linux":
        if "cuda" in providers:
            yield Finding(name="CUDA libraries", detail="not checked on this system", status=Status.NOTE)
        return
    driver = _loads(DRIVER_LIBRARY)
    if "cuda" not in providers:
        if driver:
            yield Finding(
                name="CUDA",
                detail="there is an NVIDIA driver, but this onnxruntime was built without CUDA",
                status=Status.NOTE,
                remedy=f"to use the GPU: pip uninstall -y onnxruntime && {install_command('gpu')}",
            )
        return
    if not driver:
        yield Finding(
            name="CUDA driver",
            detail=f"{DRIVER_LIBRARY} not found",
            status=Status.ERROR,
            remedy="install NVIDIA's driver, give the container access to the GPU, or use --provider cpu",
            exit_code=ProviderError.exit_code,
        )
    yield _cuda_libraries()


def _cuda_libraries() -> Finding:
    major = cuda_major()
    missing = missing_libraries()
    if not missing:
        found = (
            f"CUDA {major} and cuDNN 9 found"
            if _linked_with_cuda()
            else "cuDNN 9 found; CUDA was not checked"
        )
        return Finding(name="CUDA libraries", detail=found)
    return Finding(
        name="CUDA libraries",
        detail=f"missing {', '.join(f'{name} ({_wheel_of(name, major)})' for name in missing)}",
        status=Status.ERROR,
        remedy=f"pip install '{_gpu_wheel()}'",
        exit_code=ProviderError.exit_code,
    )


def check_tensorrt(providers: tuple[str, ...]) -> Iterator[Finding]:
    """Look for TensorRT. onnxruntime-gpu has a provider for it, but does not contain it."""
    if "tensorrt" not in providers:
        return
    version = load_tensorrt()
    if version is None:
        yield Finding(
            name="TensorRT",
            detail=f"{' or '.join(LIBRARIES)} not found; only --provider tensorrt needs it",
            status=Status.NOTE,
            remedy=f"to use it: pip install 'tensorrt-cu{cuda_major()}==10.*', or NVIDIA's packages of TensorRT 10",
        )
    else:
        yield Finding(name="TensorRT", detail=version)


def check_openvino(providers: tuple[str, ...]) -> Iterator[Finding]:
    """List the devices that OpenVINO finds."""
    if "openvino" not in providers:
        return
    from sdrt.onnx.engine import openvino_devices

    devices = ", ".join(openvino_devices()) or "this onnxruntime does not report them"
    yield Finding(name="OpenVINO", detail=f"devices for device_type: {devices}")


def check_libraries() -> Iterator[Finding]:
    """List the devices that the libraries of installed packages offer."""
    from sdrt.onnx.plugins import devices_of, find_library, installed_packages

    for package in installed_packages():
        try:
            library = find_library(package)
            devices = devices_of(library)
        except ProviderError as error:
            yield Finding(name=package, detail=str(error), status=Status.WARNING)
            continue
        names = ", ".join(_OURS.get(name, name) for name in library.providers) or "providers"
        real = [str(one) for one in devices if not one.is_virtual]
        if real:
            listed = ", ".join(f"{number}: {name}" for number, name in enumerate(real))
            yield Finding(name=names, detail=f"{library}; devices {listed}")
            continue
        rows = [PROVIDERS[_OURS[name]] for name in library.providers if name in _OURS]
        yield Finding(
            name=names,
            detail=f"{library} finds no device",
            status=Status.NOTE,
            remedy="; ".join(f"it needs {row.needs}" for row in rows),
        )


def check_missing(providers: tuple[str, ...]) -> Iterator[Finding]:
    """Say for each provider that is not installed how to install it, and what it needs."""
    for name, row in PROVIDERS.items():
        if name in providers or (row.package and is_installed(row.package)):
            continue
        if name == "coreml":
            remedy = f"it needs {row.needs}"
        else:
            # Wheels of ONNX Runtime overwrite one another, but the package of a plug-in stands beside them.
            first = "" if row.package else "pip uninstall -y onnxruntime && "
            remedy = f"to use it: {first}{install_command(row.extra)}; it needs {row.needs}"
        yield Finding(name=name, detail="not installed", status=Status.NOTE, remedy=remedy)


def _gpu_wheel() -> str:
    # Name the installed version: another one may be built for another CUDA.
    version = installed_wheels().get("onnxruntime-gpu", "")
    return (
        f"onnxruntime-gpu[cuda,cudnn]=={version}" if version[:1].isdigit() else "onnxruntime-gpu[cuda,cudnn]"
    )


def cuda_major() -> int:
    """Major CUDA version that the installed onnxruntime was built for; the newest known if it does not say."""
    for folder in _onnxruntime_folders():
        built = folder / "build_and_package_info.py"
        if built.is_file() and (
            found := re.search(r"cuda_version\s*=\s*['\"](\d+)", built.read_text("utf-8"))
        ):
            return int(found[1])
    return _NEWEST_CUDA


def _onnxruntime_folders() -> list[Path]:
    """The folders of onnxruntime's own libraries, without importing it."""
    spec = find_spec("onnxruntime")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    return [Path(root, "capi") for root in roots]


def missing_libraries() -> list[str]:
    """NVIDIA's libraries that onnxruntime's CUDA provider needs, and that neither a wheel nor the system has.

    The provider's file says which libraries it is linked with, since these differ between versions. It loads cuDNN only
    at run time, so cuDNN is always in the list of what it needs.
    """
    wanted = _linked_with_cuda()
    return [name for name in (*sorted(wanted), CUDNN_LIBRARY) if not (_in_wheel(name) or _loads(name))]


def _linked_with_cuda() -> set[str]:
    """NVIDIA's libraries that the CUDA provider is linked with. Empty if its file cannot be read."""
    linked = [linked_libraries(folder / _CUDA_PROVIDER) or [] for folder in _onnxruntime_folders()]
    return {name for names in linked for name in names if _short(name) in _NVIDIA_WHEELS}


def _wheel_of(library: str, major: int) -> str:
    """The package that has one of NVIDIA's libraries, such as libcublas.so.13."""
    if library == CUDNN_LIBRARY:
        return f"nvidia-cudnn-cu{major}"
    return f"{_NVIDIA_WHEELS[_short(library)]}{'' if major > 12 else f'-cu{major}'}"


def _short(library: str) -> str:
    """A library's name alone: cublas for libcublas.so.13."""
    return library.removeprefix("lib").partition(".")[0]


def _in_wheel(library: str) -> bool:
    roots = {*site.getsitepackages(), site.getusersitepackages(), *sys.path}
    return any(next(Path(root).glob(f"nvidia/*/lib/{library}"), None) for root in roots if root)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
