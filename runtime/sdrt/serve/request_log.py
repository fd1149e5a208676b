"""An id for each request, and a line in the log: no prompt, no key, no query."""

from __future__ import annotations

import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdrt.serve.counts import RequestCounts

__all__ = ["RequestLog"]

log = logging.getLogger("sdrt.serve.access")

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_QUIET = ("/healthz", "/readyz", "/metrics")


class RequestLog:
    """Gives each request an id (`X-Request-ID`, the client's own if it has one), and logs and counts its answer.

    The answer with an image says how long its worker took (`Server-Timing`).

    Args:
        app: the application.
        counts: counts the answers.
    """

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if (taken := scope["state"].get("worker_seconds")) is not None:
                    headers["server-timing"] = f"worker;dur={1000 * taken:.2f}"
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except Exception:
            status = status or 500  # which Starlette answers
            raise
        finally:
            seconds = time.perf_counter() - started
            self._counts.add(scope, status, seconds)
            if scope["path"] not in _QUIET:
                facts = {
                    "request_id": request_id,
                    "method": scope["method"],
                    # Without escapes, a path with a line break would write lines of its own.
                    "path": quote(scope["path"], safe="/:@!$&'()*+,;="),
                    "status": status,
                    "seconds": round(seconds, 4),
                    "client": scope["state"].get("client"),
                }
                log.info("request", extra={"facts": facts})
