"""ONNX Runtime's exceptions as errors of sdrt. Only their messages say what happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from sdrt.common.extras import install_command
from sdrt.errors import (
    ComponentError,
    IntegrityError,
    ModelError,
    OutOfMemoryError,
    ProviderError,
    SdrtError,
    UnsupportedModelError,
)
from sdrt.onnx.providers import PROVIDERS

__all__ = ["FEWER", "Subject", "images_failure", "load_failure", "out_of_memory", "run_failure"]

_MEMORY = (
    *("failed to allocate memory", "bad allocation", "bad_alloc", "out of memory", "alloc_failed"),
    "is smaller than requested bytes",  # an arena at its limit, such as gpu_mem_limit
    *("cannot allocate memory", "can't start new thread", "pthread_create failed"),
)
FEWER = (
    "make fewer images at once (num_images_per_prompt, --batch-size) or smaller ones, or use low_vram (--low-vram); "
    "`sdrt doctor --size` says what fits"
)
"""Advice for whoever runs a component alone. A pipeline knows what its user can still do, and says only that."""
_UNSUPPORTED = ("not_implemented", "could not find an implementation", "is not a registered function/op")
_DAMAGED = (
    *("invalidprotobuf", "protobuf parsing failed", "modelproto does not have a graph"),
    *("doesn't have a graph", "no graph was found", "does not exist", "no such file"),
    *("out of bounds", "external data", "file size"),
)
_OUTSIDE = ("escapes model directory",)
_OPTION = (
    "unsupported property",
    "property key",
    "for the key 'trt_",
    "unknown provider option",
    "from str:",
)
_NO_CUDNN = ("cudnn is unavailable", "cudnn is not available", "libcudnn")
_TOO_LARGE = ("maximum protobuf size",)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The component that failed, its graph's path, the provider, and ONNX Runtime's version.

    `remedy` is what to do if its weights are damaged; empty for a model that was exported.
    """

    name: str
    path: Path
    provider: str
    version: str
    remedy: str = ""

    @property
    def facts(self) -> Facts:
        """Attributes of an error about this component."""
        return {"component": self.name, "path": self.path, "provider": self.provider}


class Facts(TypedDict):
    """Attributes of an error, besides its message."""

    component: str
    path: Path
    provider: str


def run_failure(subject: Subject, error: BaseException) -> SdrtError:
    """The error to raise when a session fails to run."""
    return (
        _memory(subject, error)
        or _no_cudnn(subject, error)
        or ComponentError(
            f"{subject.name} failed to run on {subject.provider}: {_reason(error)}", **subject.facts
        )
    )


def load_failure(subject: Subject, error: BaseException) -> SdrtError:
    """The error to raise when a session could not be created."""
    if known := _memory(subject, error) or _no_cudnn(subject, error):
        return known
    name, path, provider, reason = subject.name, subject.path, subject.provider, _reason(error)
    if _says(error, _UNSUPPORTED):
        return UnsupportedModelError(
            f"{name}: {path} needs an operator that {provider} lacks in onnxruntime {subject.version}: "
            f"export with --target portable; {reason}",
            **subject.facts,
            fits="a model that was exported with --target portable",
        )
    if _says(error, _OPTION):
        return ProviderError(
            f"{name}: {provider} refuses one of its options; check --provider-option and load_config files: {reason}",
            **subject.facts,
            argument="provider_options",
        )
    if _says(error, _TOO_LARGE):
        return ProviderError(
            f"{name}: {path} is larger than the 2 GB that {provider} can load: export the checkpoint with "
            f"--dtype fp16; {reason}",
            **subject.facts,
            fits="a model that was exported with --dtype fp16",
        )
    if _says(error, _OUTSIDE):
        return IntegrityError.advised(
            f"{name}: {path} keeps weights in a file outside its folder, which ONNX Runtime does not read ({reason})",
            "copy that file into the folder in place of a link, or export the model again",
            **subject.facts,
        )
    if _says(error, _DAMAGED):
        return IntegrityError(
            f"{name}: {path} is damaged: {subject.remedy or 'copy or export the model again'}; {reason}",
            **subject.facts,
        )
    kind = ModelError if provider == "cpu" else ProviderError
    target = f"with --target {PROVIDERS[provider].target}"
    return kind(
        f"{name}: {path} cannot be loaded on {provider}: export it again {target}; {reason}",
        **subject.facts,
        fits=f"a model that was exported {target}",
    )


def images_failure(error: BaseException) -> OutOfMemoryError:
    """The error to raise when memory runs out between the components, for example for images."""
    return OutOfMemoryError(f"{out_of_memory(None, None)}: {FEWER}; {_reason(error)}", fits=FEWER)


def out_of_memory(component: str | None, provider: str | None) -> str:
    """A phrase for messages: what ran out of memory. None stands for the images between the components."""
    if component is None:
        return "the images do not fit into memory"
    return f"{component} ran out of memory" + (f" on {provider}" if provider else "")


def _memory(subject: Subject, error: BaseException) -> OutOfMemoryError | None:
    if not (isinstance(error, MemoryError) or _says(error, _MEMORY)):
        return None
    what = out_of_memory(subject.name, subject.provider)
    return OutOfMemoryError(f"{what}: {FEWER}; {_reason(error)}", **subject.facts, fits=FEWER)


def _no_cudnn(subject: Subject, error: BaseException) -> ProviderError | None:
    if not _says(error, _NO_CUDNN):
        return None
    extra = PROVIDERS[subject.provider].extra
    return ProviderError(
        f"{subject.name}: {subject.provider} needs cuDNN 9, but the loader does not find it: install it with "
        f"{install_command(extra)}, or run sdrt doctor to see where it is looked for; {_reason(error)}",
        **subject.facts,
        fits="cuDNN 9",
    )


def _says(error: BaseException, marks: tuple[str, ...]) -> bool:
    text = str(error).lower() + type(error).__name__.lower()
    return any(mark in text for mark in marks)


def _reason(error: BaseException) -> str:
    """The message, without those of the exceptions that wrap it."""
    return _text(error).rpartition("Exception from ")[2][:400]


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())
