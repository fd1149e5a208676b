"""What the runtime is told before it starts: execution providers and threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdrt.errors import ProviderError, RequestError
from sdrt.wording import brief

__all__ = ["AUTO", "PROVIDERS", "Provider", "SessionConfig", "provider_names"]

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One execution provider of ONNX Runtime.

    `ort` is its name there; `extra` the extra of this distribution that installs it; `device` the memory that
    its input buffers live in ("cuda"), None when they stay in the host's; `target` the kind of graph that
    suits it (a row of the exporter's target table); `helpers` the rows that may take what it refuses.
    """

    ort: str
    extra: str
    device: str | None = None
    target: str = "portable"
    options: Mapping[str, str] = field(default_factory=dict)
    helpers: tuple[str, ...] = ()


# `kSameAsRequested`: the default doubles the arena and keeps what it does not use.
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested"}

# No DirectML: it allows one run of a session at a time, and there is no machine to test it on.
PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider(ort="CPUExecutionProvider", extra="cpu", target="cpu"),
    "cuda": Provider(
        ort="CUDAExecutionProvider", extra="gpu", device="cuda", target="cpu", options=_CUDA_OPTIONS
    ),
    "tensorrt": Provider(ort="TensorrtExecutionProvider", extra="gpu", device="cuda", helpers=("cuda",)),
    "openvino": Provider(ort="OpenVINOExecutionProvider", extra="openvino"),
    "coreml": Provider(ort="CoreMLExecutionProvider", extra="cpu"),
}


def provider_names() -> tuple[str, ...]:
    """What a user may ask for."""
    return (AUTO, *PROVIDERS)


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """How sessions are made and used.

    `provider` is a name of `provider_names()`; `cuda:N` is the Nth device. `vae_tiling` says whether pictures are
    encoded and decoded in tiles; None: the large ones are. `profile` is a folder for ONNX Runtime's own profiles, which
    make every run slower.
    """

    provider: str = AUTO
    threads: int | None = None
    allow_fallback: bool = False
    vae_tiling: bool | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        known = ", ".join(provider_names())
        if not isinstance(self.provider, str):
            raise ProviderError(f"provider is {brief(self.provider)}: expected one of {known}")
        name, colon, device = self.provider.partition(":")
        if name not in provider_names():
            raise ProviderError(f"unknown provider {brief(self.provider)}: expected one of {known}")
        numbered = [row for row in PROVIDERS if PROVIDERS[row].device]
        if colon and name not in numbered:
            raise ProviderError(
                f"provider {brief(self.provider)}: {name} takes no device number, only {', '.join(numbered)} do"
            )
        if colon and not (device.isascii() and device.isdigit() and len(device) < 4):
            raise ProviderError(
                f"provider {brief(self.provider)}: after ':' expected a device number, as in cuda:1"
            )
        if self.vae_tiling not in (None, True, False):
            raise RequestError(f"vae_tiling is {brief(self.vae_tiling)}: expected true, false or nothing")
        threads = self.threads
        if threads is not None and not (type(threads) is int and 1 <= threads <= 1024):
            raise RequestError(
                f"threads is {brief(threads)}: expected 1 to 1024, or leave it out to use every core"
            )

    @property
    def name(self) -> str:
        """The provider without its device number."""
        return self.provider.partition(":")[0]

    @property
    def device_id(self) -> int:
        """The device number, 0 when none was given."""
        return int(self.provider.partition(":")[2] or 0)
