"""What the server refuses and cannot do, with the status of the answer."""

from __future__ import annotations

from collections.abc import Mapping

from sdrt import errors
from sdrt.errors import SdrtError
from sdrt.serve.task import Failure

__all__ = ["ServeError", "error_of", "of_failure", "queue_full"]


class ServeError(Exception):
    """An answer that is not a result. Each API writes it in its own form.

    Attributes:
        status: the HTTP status.
        message: what is wrong and what would be right.
        field: the field of the request that is wrong, by that API's name.
        code: a word for programs.
        headers: headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.code = status, message, field, code
        self.headers = dict(headers or {})


_STATUS = {
    "ClusterError": 503,
    "ModelNotFoundError": 404,
    "OutOfMemoryError": 507,
    "ShutdownError": 503,
    "TimeoutError": 504,
}


def of_failure(failure: Failure, fields: Mapping[str, str] | None = None) -> ServeError:
    """The answer for a task that failed. `fields` has the API's names of settings that it calls otherwise."""
    status = 400 if failure.is_request else _STATUS.get(failure.kind, 500)
    argument = failure.argument
    field = None if argument is None else (fields or {}).get(argument, argument)
    return ServeError(status, failure.message, field=field, code=failure.kind)


def error_of(failure: Failure) -> SdrtError:
    """The error that a failure in another process was."""
    kind: type[SdrtError] = getattr(errors, failure.kind) if failure.kind in errors.__all__ else SdrtError
    return kind(failure.message, argument=failure.argument)


def queue_full(waiting: int, seconds: int) -> ServeError:
    """The answer when as many jobs wait as may."""
    return ServeError(
        429,
        f"{waiting} jobs are waiting, and no more of yours may: try again in {seconds} s",
        code="queue_full",
        headers={"Retry-After": str(seconds)},
    )
