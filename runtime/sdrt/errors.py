"""What can go wrong, as types. Every message names the thing, what was expected, and the remedy.

::

    SdrtError
    ├── RequestError (ValueError)          an argument or option              exit code 2
    ├── ModelError                         the model folder                   exit code 3
    │   ├── ModelNotFoundError             nothing usable at that path or id
    │   ├── IntegrityError                 a file is not what the manifest says
    │   ├── UnsupportedModelError          a class or config key this version cannot honour
    │   ├── ComponentError                 a component got or gave the wrong tensors
    │   └── ExportError                    an export could not be made or did not match torch
    ├── ProviderError                      an execution provider is missing   exit code 4
    └── OutOfMemoryError (MemoryError)     host or device memory              exit code 5

Beside its message an error has its facts as attributes, each None where it does not apply: nobody has to read the
message to find them.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "ComponentError",
    "ExportError",
    "IntegrityError",
    "ModelError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "ProviderError",
    "RequestError",
    "SdrtError",
    "UnsupportedModelError",
]


class SdrtError(Exception):
    """Base of every error this package raises on purpose.

    `component` is the part of the model that it is about, `path` the file or folder, `argument` the argument or option,
    `provider` the execution provider. `fits` says in words what would do instead: which values, or a remedy.
    """

    exit_code = 1

    def __init__(
        self,
        *message: object,
        component: str | None = None,
        path: Path | None = None,
        argument: str | None = None,
        provider: str | None = None,
        fits: str | None = None,
    ) -> None:
        super().__init__(*message)
        self.component, self.path = component, path
        self.argument, self.provider, self.fits = argument, provider, fits


class RequestError(SdrtError, ValueError):
    """An argument or option is outside what is allowed."""

    exit_code = 2


class ModelError(SdrtError):
    """The model folder cannot be used as it is."""

    exit_code = 3


class ModelNotFoundError(ModelError):
    """There is no model at the given path or hub id."""


class IntegrityError(ModelError):
    """A file of the model is missing, truncated or altered."""


class UnsupportedModelError(ModelError):
    """The model needs something this version does not support."""


class ComponentError(ModelError):
    """A component was given, or produced, tensors that it must not."""


class ExportError(ModelError):
    """A checkpoint could not be exported, or its export does not match torch."""


class ProviderError(SdrtError):
    """An execution provider is unknown, missing, or took less than it should."""

    exit_code = 4


class OutOfMemoryError(SdrtError, MemoryError):
    """Host or device memory ran out."""

    exit_code = 5
