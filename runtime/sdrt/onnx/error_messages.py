"""What ONNX Runtime's messages mean to a user: its exceptions say it in words alone."""

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

__all__ = ["Subject", "load_failure", "out_of_memory", "pictures_failure", "run_failure"]

_MEMORY = (
    *("failed to allocate memory", "bad allocation", "bad_alloc", "out of memory", "alloc_failed"),
    "is smaller than requested bytes",  # an arena at its limit, such as gpu_mem_limit
    *("cannot allocate memory", "can't start new thread", "pthread_create failed"),
)
_FEWER = (
    "make fewer pictures at once (num_images_per_prompt, --batch-size) or smaller ones; `sdrt doctor --size` says what "
    "fits, and low_vram (--low-vram) takes less"
)
_UNSUPPORTED = ("not_implemented", "could not find an implementation", "is not a registered function/op")
_DAMAGED = (
    *("invalidprotobuf", "protobuf parsing failed", "modelproto does not have a graph"),
    *("doesn't have a graph", "no graph was found", "does not exist", "no such file"),
    *("out of bounds", "external data", "file size"),
)
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
    """What failed: component `name`, its graph, the provider, and ONNX Runtime's version."""

    name: str
    path: Path
    provider: str
    version: str

    @property
    def facts(self) -> Facts:
        """For an error about it."""
        return {"component": self.name, "path": self.path, "provider": self.provider}


class Facts(TypedDict):
    """What errors are told beside their message."""

    component: str
    path: Path
    provider: str


def run_failure(subject: Subject, error: BaseException) -> SdrtError:
    """The error to raise when a session that was created could not run."""
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
            f"{name}: {provider} refuses one of its options, in a file or of --provider-option: {reason}",
            **subject.facts,
            argument="provider_options",
        )
    if _says(error, _TOO_LARGE):
        return ProviderError(
            f"{name}: {path} has more than the 2 GB that {provider} can be handed: export the checkpoint with "
            f"--dtype fp16; {reason}",
            **subject.facts,
            fits="a model that was exported with --dtype fp16",
        )
    if _says(error, _DAMAGED):
        return IntegrityError(
            f"{name}: {path} is damaged: copy or export the model again; {reason}", **subject.facts
        )
    kind = ModelError if provider == "cpu" else ProviderError
    target = f"with --target {PROVIDERS[provider].target}"
    return kind(
        f"{name}: {path} cannot be loaded on {provider}: export it again {target}; {reason}",
        **subject.facts,
        fits=f"a model that was exported {target}",
    )


def pictures_failure(error: MemoryError) -> OutOfMemoryError:
    """The error to raise when there is no memory for what lies between the components."""
    return OutOfMemoryError(f"{out_of_memory(None, None)}: {_FEWER}; {_reason(error)}", fits=_FEWER)


def out_of_memory(component: str | None, provider: str | None) -> str:
    """What ran out of memory, in words: a component, or what lies between them."""
    if component is None:
        return "the pictures do not fit into memory"
    return f"{component} ran out of memory" + (f" on {provider}" if provider else "")


def _memory(subject: Subject, error: BaseException) -> OutOfMemoryError | None:
    if not (isinstance(error, MemoryError) or _says(error, _MEMORY)):
        return None
    what = out_of_memory(subject.name, subject.provider)
    return OutOfMemoryError(f"{what}: {_FEWER}; {_reason(error)}", **subject.facts, fits=_FEWER)


def _no_cudnn(subject: Subject, error: BaseException) -> ProviderError | None:
    if not _says(error, _NO_CUDNN):
        return None
    extra = PROVIDERS[subject.provider].extra
    return ProviderError(
        f"{subject.name}: {subject.provider} needs cuDNN 9, which the loader does not find: {install_command(extra)}, "
        f"which brings it, or sdrt doctor says where it looks; {_reason(error)}",
        **subject.facts,
        fits="cuDNN 9",
    )


def _says(error: BaseException, marks: tuple[str, ...]) -> bool:
    text = str(error).lower() + type(error).__name__.lower()
    return any(mark in text for mark in marks)


def _reason(error: BaseException) -> str:
    """What was said, of exceptions that were wrapped in one another the innermost."""
    return _text(error).rpartition("Exception from ")[2][:400]


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())
