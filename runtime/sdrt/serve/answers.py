"""The forms in which the APIs tell errors."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from sdrt.serve.errors import ServeError

__all__ = ["error_response", "openai_error", "refusal"]


def refusal(scope: Scope, error: ServeError) -> JSONResponse:
    """The answer to a request of which only the scope is known."""
    return error_response(scope["path"], error)


def error_response(path: str, error: ServeError) -> JSONResponse:
    """An error in the form of the API that `path` belongs to."""
    headers = error.headers
    if path.startswith("/v1/"):
        form, headers = openai_error, headers | _retry(error)
    else:
        form = _a1111 if path.startswith(_A1111) else _own
    return JSONResponse(form(error), status_code=error.status, headers=headers)


def _own(error: ServeError) -> dict[str, Any]:
    return {"detail": error.message, "field": error.field, "code": error.code}


def openai_error(error: ServeError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = _OPENAI_TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {
        "error": {"message": error.message, "type": kind, "param": error.field, "code": error.code},
    }


def _retry(error: ServeError) -> dict[str, str]:
    """OpenAI's clients repeat a request after 409 and any 5xx, twice, unless told not to. A failed job fails again."""
    fails_again = error.status == 409 or (error.status >= 500 and error.status != 503)
    return {"x-should-retry": "false"} if fails_again else {}


_A1111 = ("/sdapi/", "/controlnet/")
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def _a1111(error: ServeError) -> dict[str, Any]:
    """A1111 tells the class of an exception, and its text twice. Clients show `detail` or `errors`."""
    return {
        "error": error.code or "HTTPException",
        "detail": error.message,
        "body": "",
        "errors": error.message,
        "field": error.field,
    }
