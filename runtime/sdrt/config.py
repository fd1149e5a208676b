"""What the runtime is told before it starts: execution providers, threads, and where notices go."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sdrt.errors import ProviderError, RequestError

__all__ = ["AUTO", "PROVIDERS", "Notices", "Provider", "SdrtWarning", "SessionConfig", "provider_names"]

AUTO = "auto"
Notify = Callable[[str], None]


class SdrtWarning(UserWarning):
    """Something the user should know about and that did not stop the work."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One execution provider of ONNX Runtime.

    `ort` is its name there; `extra` the extra of this distribution that installs it, None when its wheel
    comes from elsewhere; `device` where its input buffers live ("cpu" or "cuda"); `target` the kind of
    graph that suits it (a row of the exporter's target table).
    """

    ort: str
    extra: str | None
    device: str = "cpu"
    target: str = "portable"
    options: Mapping[str, str] = field(default_factory=dict)


# `kSameAsRequested`: the default doubles the arena and keeps what it does not use.
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested"}

PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider(ort="CPUExecutionProvider", extra="cpu", target="cpu"),
    "cuda": Provider(
        ort="CUDAExecutionProvider", extra="gpu", device="cuda", target="cpu", options=_CUDA_OPTIONS
    ),
    "tensorrt": Provider(ort="TensorrtExecutionProvider", extra="gpu", device="cuda"),
    "openvino": Provider(ort="OpenVINOExecutionProvider", extra="openvino"),
    "coreml": Provider(ort="CoreMLExecutionProvider", extra="cpu"),
    "dml": Provider(ort="DmlExecutionProvider", extra=None),
}


def provider_names() -> tuple[str, ...]:
    """What a user may ask for."""
    return (AUTO, *PROVIDERS)


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """How sessions are made. `provider` is a name of `provider_names()`, with `:N` for the Nth device."""

    provider: str = AUTO
    threads: int | None = None
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        name, _, device = self.provider.partition(":")
        if name not in provider_names():
            known = ", ".join(provider_names())
            raise ProviderError(f"unknown provider {self.provider!r}: expected one of {known}")
        if device and not (device.isascii() and device.isdigit()):
            raise ProviderError(
                f"provider {self.provider!r}: after ':' expected a device number, as in cuda:1"
            )
        threads = self.threads
        if threads is not None and (isinstance(threads, bool) or not 1 <= threads <= 1024):
            raise RequestError(f"threads is {threads}: expected 1 to 1024, or leave it out to use every core")

    @property
    def name(self) -> str:
        """The provider without its device number."""
        return self.provider.partition(":")[0]

    @property
    def device_id(self) -> int:
        """The device number, 0 when none was given."""
        return int(self.provider.partition(":")[2] or 0)


class Notices:
    """Where messages to the user go: to `notify` when given, else to `warnings` and `logging`."""

    def __init__(self, notify: Notify | None = None) -> None:
        self._notify = notify

    def warn(self, message: str) -> None:
        """Say something that changes what the user gets."""
        if self._notify is None:
            warnings.warn(message, SdrtWarning, stacklevel=2)
        else:
            self._notify(message)

    def inform(self, message: str) -> None:
        """Say what is taking time; without `notify` this is a log record, not a warning."""
        if self._notify is None:
            logging.getLogger("sdrt").info(message)
        else:
            self._notify(message)
