"""Execution providers, and how sessions use them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sdrt.common.messages import brief, wrong_value
from sdrt.errors import ProviderError
from sdrt.foreign.devices import DEVICES
from sdrt.foreign.word import find
from sdrt.onnx.option_values import Option
from sdrt.onnx.provider_options import (
    CUDA,
    OPENVINO,
    TENSORRT,
    WEBGPU,
    Setting,
    cuda_options,
    openvino_options,
    plain_options,
    read_options,
    tensorrt_options,
)

__all__ = ["AUTO", "PROVIDERS", "Provider", "SessionConfig", "known_options", "provider_names"]

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One execution provider of ONNX Runtime.

    Attributes:
        ort: ONNX Runtime's name for it.
        needs: what must be installed before it works.
        extra: the extra of sdrt that installs it.
        device: the memory of its input buffers, "cuda". None for host memory.
        target: the target whose graphs suit it, a row of the exporter's table.
        defaults: options that it always gets.
        takes: options that users may set.
        compose: makes ONNX Runtime's options from the user's options and a setting.
        helpers: rows of providers that may run what it refuses. It takes their options too.
        whole: whether it must take all nodes of its target's graphs, including those that compute shapes.
        keeps_compiled: whether it gets a folder of the user's cache for compiled engines.
        lacks: the targets with operators that neither it nor the CPU supports.
        warms_up: what its first run at a size does in addition to its usual work. Empty for nothing.
        takes_memory: whether it takes graphs in memory. The others compile files, and keep what they compiled.
        package: the package whose library has it, if ONNX Runtime itself has not.
        takes_any: whether it takes options that sdrt does not know.
        probed: whether fused operators are tried on a device before graphs with them run there.
        one_at_a_time: whether only one session of the process may use a device at a time. The others wait.
    """

    ort: str
    needs: str
    extra: str
    device: str | None = None
    target: str = "portable"
    defaults: Mapping[str, str] = field(default_factory=dict)
    takes: Mapping[str, Option] = field(default_factory=dict)
    compose: Callable[[Mapping[str, str], Setting], dict[str, str]] = plain_options
    helpers: tuple[str, ...] = ()
    whole: bool = False
    keeps_compiled: bool = False
    lacks: tuple[str, ...] = ()
    warms_up: str = ""
    takes_memory: bool = False
    package: str = ""
    takes_any: bool = False
    probed: bool = False
    one_at_a_time: bool = False


class _Rows(dict[str, Provider]):
    """Rows by name. Providers of plug-in libraries that have no row get one when they are asked for."""

    def __missing__(self, name: str) -> Provider:
        if not name.endswith(_ORT_SUFFIX) or name == _ORT_SUFFIX:
            raise KeyError(name)
        return Provider(
            ort=name,
            needs="what its library needs",
            extra="cpu",
            lacks=_WITHOUT_CONTRIB,
            takes_any=True,
        )


_ORT_SUFFIX = "ExecutionProvider"
_WITHOUT_CONTRIB = ("cpu", "cuda")
"""The targets whose graphs have ONNX Runtime's own operators. Nobody has tried these providers' kernels for them."""


# DirectML is missing: it allows one run of a session at a time, and we have no machine to test it on.
_ROWS: Mapping[str, Provider] = {
    "cpu": Provider(
        ort="CPUExecutionProvider",
        needs="nothing more",
        extra="cpu",
        target="cpu",
        lacks=("cuda",),
        takes_memory=True,
    ),
    "cuda": Provider(
        ort="CUDAExecutionProvider",
        needs="an NVIDIA GPU, its driver, CUDA and cuDNN 9",
        extra="gpu",
        device="cuda",
        target="cuda",
        # By default the arena doubles, and keeps memory that it does not use.
        defaults={"arena_extend_strategy": "kSameAsRequested"},
        takes=CUDA,
        compose=cuda_options,
        warms_up="cuDNN chooses its kernels",
        takes_memory=True,
    ),
    "tensorrt": Provider(
        ort="TensorrtExecutionProvider",
        needs="all that cuda needs, and TensorRT 10",
        extra="gpu",
        device="cuda",
        takes=TENSORRT,
        compose=tensorrt_options,
        helpers=("cuda",),
        keeps_compiled=True,
        warms_up="TensorRT builds its engines, which takes minutes, unless it finds them in the cache",
    ),
    "openvino": Provider(
        ort="OpenVINOExecutionProvider",
        needs="an x86-64 CPU, or an Intel GPU or NPU and its driver",
        extra="openvino",
        takes=OPENVINO,
        compose=openvino_options,
        whole=True,
        lacks=("cuda",),
    ),
    "webgpu": Provider(
        ort="WebGpuExecutionProvider",
        needs="a GPU, its driver for Vulkan, Direct3D 12 or Metal, and Python 3.11 or later",
        extra="webgpu",
        device="webgpu",
        takes=WEBGPU,
        lacks=("cuda",),
        warms_up="WebGPU compiles its shaders",
        takes_memory=True,
        package="onnxruntime-ep-webgpu",
        probed=True,
        # Its sessions share a device's queue and buffers without a lock of their own.
        one_at_a_time=True,
    ),
    "coreml": Provider(ort="CoreMLExecutionProvider", needs="macOS", extra="cpu", lacks=("cuda",)),
    "tensorrt-rtx": Provider(
        ort="NvTensorRTRTXExecutionProvider",
        needs="an NVIDIA RTX GPU of 2018 or later, its driver (CUDA is not needed), and Python 3.11 or later",
        extra="tensorrt-rtx",
        lacks=_WITHOUT_CONTRIB,
        warms_up="TensorRT for RTX compiles its engines",
        package="onnxruntime-ep-nv-tensorrt-rtx-cu13",
        takes_any=True,
    ),
    "mlx": Provider(
        ort="MLXExecutionProvider",
        needs="macOS 14 on Apple silicon, and Python 3.11 or later",
        extra="mlx",
        lacks=_WITHOUT_CONTRIB,
        package="onnxruntime-ep-mlx",
        takes_any=True,
    ),
}
PROVIDERS: Mapping[str, Provider] = _Rows(_ROWS)


_OWN = frozenset({"enable_cuda_graph"})
"""Options that a helper does not take, because it runs only a part of the graph."""


_OF_ORT: Mapping[str, str] = {row.ort: name for name, row in PROVIDERS.items()}
"""The names by ONNX Runtime's own, which diffusers and optimum take."""


def provider_names() -> tuple[str, ...]:
    """The names that users may ask for."""
    return (AUTO, *PROVIDERS)


def known_options(name: str) -> dict[str, Option]:
    """The options that users may set for the provider `name`: its own, then its helpers'."""
    return {
        key: option
        for row in (name, *PROVIDERS[name].helpers)
        for key, option in PROVIDERS[row].takes.items()
        if row == name or key not in _OWN
    }


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """How sessions are made and used.

    Attributes:
        provider: a name of `provider_names()`, or ONNX Runtime's name for it. `cuda:N` is the Nth device.
        threads: how many threads the CPU uses, at most one per CPU. None for all cores.
        allow_fallback: whether other providers may run parts of a graph.
        vae_tiling: whether images are encoded and decoded in tiles. None: only large images.
        low_vram: whether to use as little memory as possible: one component at a time, one row of a batch after
            another, the VAE in tiles. None: after memory has run out.
        tune: whether to write graphs into the cache as this machine's CPU runs them. None: only load those that are
            there. False: not even that.
        profile: a folder for ONNX Runtime's profiles, which make every run slower.
        provider_options: options of the provider, by name.
        provider_library: the library that has the provider: a file, or an installed package such as
            "onnxruntime-ep-webgpu". None: the installed ONNX Runtime, or the package that the provider's row names.

    Raises:
        ProviderError: the provider is unknown.
        RequestError: another value is wrong.
    """

    provider: str = AUTO
    threads: int | None = None
    allow_fallback: bool = False
    vae_tiling: bool | None = None
    low_vram: bool | None = None
    tune: bool | None = None
    profile: str | None = None
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    provider_library: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        known = f"one of {', '.join(provider_names())}"
        if (type(self.provider).__module__, type(self.provider).__name__) == ("torch", "device"):
            object.__setattr__(self, "provider", str(self.provider))
        if not isinstance(self.provider, str):
            raise ProviderError.expected(f"provider is {brief(self.provider)}", known, argument="provider")
        theirs, colon, device = self.provider.partition(":")
        object.__setattr__(self, "provider", f"{_OF_ORT.get(theirs, theirs)}{colon}{device}")
        asked = f"provider {brief(self.provider)}"
        facts = {"argument": "provider", "provider": self.provider}
        name = self.provider.partition(":")[0]
        if isinstance(self.provider_library, os.PathLike):
            object.__setattr__(self, "provider_library", os.fspath(self.provider_library))
        if not (self.provider_library is None or isinstance(self.provider_library, str)):
            raise wrong_value(
                "provider_library", self.provider_library, "a file, the name of a package, or None"
            )
        if self.provider_library is not None and name in (AUTO, "cpu"):
            raise ProviderError.advised(
                f"provider_library is {brief(self.provider_library)}, but provider is {name}",
                "say which of its providers to use, such as webgpu",
                argument="provider",
            )
        if name not in provider_names() and not (self.provider_library and name.endswith(_ORT_SUFFIX)):
            if word := find(name, DEVICES):
                raise ProviderError.advised(f"unknown {asked} ({word.what})", word.ours, **facts)
            raise ProviderError.expected(f"unknown {asked}", known, **facts)
        if colon and (name == AUTO or not (PROVIDERS[name].device or self.provider_library)):
            numbered = ", ".join(row for row in PROVIDERS if PROVIDERS[row].device)
            raise ProviderError.advised(
                f"{asked}: {name} takes no device number", f"only {numbered} do", joint="; ", **facts
            )
        if colon and not (device.isascii() and device.isdigit() and len(device) < 4):
            raise ProviderError.expected(asked, "a device number after ':', as in cuda:1", **facts)
        if not (self.vae_tiling is None or isinstance(self.vae_tiling, bool)):
            raise wrong_value("vae_tiling", self.vae_tiling, "True, False or None")
        if not (self.low_vram is None or isinstance(self.low_vram, bool)):
            raise wrong_value("low_vram", self.low_vram, "True, False or None")
        if not (self.tune is None or isinstance(self.tune, bool)):
            raise wrong_value("tune", self.tune, "True, False or None")
        threads = self.threads
        if threads is not None and not (type(threads) is int and 1 <= threads <= 1024):
            raise wrong_value("threads", threads, "1 to 1024, or leave it out to use every core")
        if name != AUTO:
            # "auto" is checked again once it is resolved to a provider.
            known_keys = None if PROVIDERS[name].takes_any else known_options(name)
            options = read_options(name, known_keys, self.provider_options)
            object.__setattr__(self, "provider_options", options)
            self.passed(name, Setting())

    def passed(self, name: str, setting: Setting) -> dict[str, str]:
        """The options that ONNX Runtime is passed for the row `name`: the provider, a helper or the CPU."""
        row = PROVIDERS[name]
        own = {
            key: value for key, value in self.provider_options.items() if key in row.takes or row.takes_any
        }
        # The library of a plug-in gets the device itself.
        if self.provider_library is not None and row.ort == PROVIDERS[self.name].ort:
            # Its options may have other names than those of the provider inside of ONNX Runtime.
            return own
        device = {"device_id": str(self.device_id)} if row.device and not row.package else {}
        return {**row.defaults, **row.compose(own, setting), **device}

    @cached_property
    def name(self) -> str:
        """The provider without its device number."""
        return self.provider.partition(":")[0]

    @property
    def device_id(self) -> int:
        """The device number, 0 if none was given."""
        return int(self.provider.partition(":")[2] or 0)
