"""The application: its routes, and what every request passes through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from sdrt.common.version import __version__
from sdrt.serve.access import Access
from sdrt.serve.answers import error_response, refusal
from sdrt.serve.body_limits import BodyLimits
from sdrt.serve.counts import RequestCounts
from sdrt.serve.errors import ServeError
from sdrt.serve.options import ServeOptions
from sdrt.serve.request_log import RequestLog
from sdrt.serve.routes import a1111, health, info, jobs, openai, page
from sdrt.serve.service import Service
from sdrt.serve.task import Failure
from sdrt.serve.uploads import Uploads
from sdrt.serve.workers import Workers

__all__ = ["make_app"]

_ABOUT = "Images by Stable Diffusion, made with ONNX Runtime."


def make_app(
    options: ServeOptions,
    workers: Workers | None = None,
    lost: Callable[[Failure], object] = lambda failure: None,
) -> FastAPI:
    """The application of a server with these options. Its workers start with it, and end with it.

    Args:
        options: what to serve.
        workers: its workers. None for those of this machine that the options ask for.
        lost: called when there are no workers, and will be none.
    """

    uploads, requests = Uploads(options.limits.uploads), RequestCounts()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = app.state.service = Service(options, workers, uploads)
        app.state.a1111_clients = a1111.Clients()
        service.dispatcher.start()
        watch = asyncio.ensure_future(_tell_of_loss(service, lost))
        try:
            yield
        finally:
            watch.cancel()
            await service.stop()

    app = FastAPI(
        title="sdrt",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        # Their pages load scripts from another site.
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(options, uploads, requests),
        exception_handlers={
            ServeError: _refused,
            RequestValidationError: _invalid,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )
    app.state.requests = requests
    for module in (health, openai, a1111, jobs, info, page):
        app.include_router(module.router)
    return app


def _middleware(options: ServeOptions, uploads: Uploads, requests: RequestCounts) -> list[Middleware]:
    """What requests pass through, the outermost first."""
    log = Middleware(RequestLog, requests)
    bodies = Middleware(BodyLimits, options.limits, uploads, refusal)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(options.origins),
        allow_methods=["GET", "POST", "DELETE"],
        # OpenAI's client for browsers sends a dozen of its own, and reads these.
        allow_headers=["*"],
        expose_headers=["Retry-After", "X-Request-ID", "X-Should-Retry"],
    )
    access = Middleware(Access, options.keys, options.origins, options.hosts, refusal)
    return [log, *([cors] if options.origins else []), access, bodies]


async def _tell_of_loss(service: Service, lost: Callable[[Failure], object]) -> None:
    await service.dispatcher.lost()
    if (failure := service.dispatcher.failure) is not None:
        lost(failure)


async def _refused(request: Request, error: ServeError) -> Response:
    return error_response(request.url.path, error)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """A field is missing, unknown or of a wrong type."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(place)[:128] or None
    message = f"{field or 'the body'}: {first['msg']}"
    if first["type"] == "extra_forbidden":
        message = f"unknown field {field!r}"
    # OpenAI's clients raise another exception for 422 than for other errors of a request.
    status = 400 if request.url.path.startswith("/v1/") else 422
    return error_response(request.url.path, ServeError(status, message, field=field, code=first["type"]))


async def _http_error(request: Request, error: HTTPException) -> Response:
    own = ServeError(error.status_code, str(error.detail), headers=error.headers)
    return error_response(request.url.path, own)


async def _unexpected(request: Request, error: Exception) -> Response:
    """An error of the server's own. The log has it whole."""
    own = ServeError(500, f"the server failed ({type(error).__name__})", code="internal_error")
    return error_response(request.url.path, own)
