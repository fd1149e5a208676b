"""The exceptions of sdrt. Every message says what is wrong, what was expected, and what to do about it.

::

    SdrtError
    ├── RequestError (ValueError)          an argument or option is wrong             exit code 2
    │   ├── UnknownArgumentError (TypeError)        a function has no such argument
    │   ├── UnknownAttributeError (AttributeError)  an object has no such attribute
    │   └── UnknownNameError (ImportError)          sdrt has no such name
    ├── ModelError                         the model cannot be used                   exit code 3
    │   ├── ModelNotFoundError             there is no model at this path or hub id
    │   ├── IntegrityError                 a file differs from the manifest
    │   ├── UnsupportedModelError          a class or config key is not supported
    │   ├── ComponentError                 a component got or produced wrong tensors
    │   └── ExportError                    an export failed or does not match torch
    ├── ProviderError                      an execution provider is missing           exit code 4
    ├── OutOfMemoryError (MemoryError)     the host or the device is out of memory    exit code 5
    └── RunCancelledError                  the call's `cancel` was set                exit code 130

Errors also have attributes with what the message says, so that programs need not parse it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "ComponentError",
    "ExportError",
    "IntegrityError",
    "ModelError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "ProviderError",
    "RequestError",
    "RunCancelledError",
    "SdrtError",
    "UnknownArgumentError",
    "UnknownAttributeError",
    "UnknownNameError",
    "UnsupportedModelError",
]

E = TypeVar("E", bound="SdrtError")


class SdrtError(Exception):
    """Base class of all exceptions that sdrt raises on purpose.

    Each attribute is None if it does not apply.

    Attributes:
        component: the component of the model, such as "unet".
        path: the file or folder.
        argument: the argument or option.
        provider: the execution provider.
        fits: in words, the values that would be accepted, or a remedy.
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

    @classmethod
    def expected(cls: type[E], problem: str, fits: str, **facts: Any) -> E:
        """The error with the message "problem: expected fits"."""
        return cls(f"{problem}: expected {fits}", fits=fits, **facts)

    @classmethod
    def advised(cls: type[E], problem: str, fits: str, *, joint: str = ": ", **facts: Any) -> E:
        """The error with the message "problem: fits", where `fits` is a remedy."""
        return cls(f"{problem}{joint}{fits}", fits=fits, **facts)


class RequestError(SdrtError, ValueError):
    """An argument or option has a value that is not allowed."""

    exit_code = 2


class UnknownArgumentError(RequestError, TypeError):
    """A function does not have this argument. It is also a `TypeError`, as for any function."""


class UnknownAttributeError(RequestError, AttributeError):
    """An object does not have this attribute. It is also an `AttributeError`, so `hasattr` works."""


class UnknownNameError(RequestError, ImportError):  # type: ignore[misc]  # an ImportError's path is a text
    """sdrt does not have this name. It is also an `ImportError`."""


class ModelError(SdrtError):
    """The model folder cannot be used as it is."""

    exit_code = 3


class ModelNotFoundError(ModelError):
    """There is no model at the given path or hub id."""


class IntegrityError(ModelError):
    """A file of the model is missing, truncated or altered."""


class UnsupportedModelError(ModelError):
    """The model needs something that this version of sdrt does not support."""


class ComponentError(ModelError):
    """A component received or produced tensors of a wrong shape, type or value."""


class ExportError(ModelError):
    """A checkpoint could not be exported, or its export does not match torch."""


class ProviderError(SdrtError):
    """An execution provider is unknown or missing, or runs less of the model than it should."""

    exit_code = 4


class OutOfMemoryError(SdrtError, MemoryError):
    """The host or the device ran out of memory."""

    exit_code = 5


class RunCancelledError(SdrtError):
    """The run stopped, because the `cancel` of its call was set.

    Attributes:
        steps: the number of steps that were finished.
        num_steps: the number of steps of the run; None if the scheduler chooses them as it goes.
        images: the images that were finished, in order, of the type that the call asked for.
    """

    exit_code = 130

    def __init__(self, *message: object, **facts: Any) -> None:
        super().__init__(*message, **facts)
        self.steps: int = 0
        self.num_steps: int | None = 0
        self.images: list[Any] = []
