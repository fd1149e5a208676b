"""How large the bodies of requests may be, and how long they may take to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdrt.serve.errors import ServeError
from sdrt.serve.options import Limits
from sdrt.serve.uploads import Uploads

__all__ = ["BodyLimits"]

_SLOWEST = 1000
"""Bytes a second. Without it, a body that arrives a byte at a time could take days."""


class BodyLimits:
    """Refuses bodies that are too large, for which there is no room, or that do not arrive in time.

    Args:
        app: the application.
        limits: the limits.
        uploads: counts the bytes of all bodies. Each counts as long as its request lasts.
        refuse: the application that answers in its place.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, uploads: Uploads, refuse: Callable[[Scope, ServeError], ASGIApp]
    ) -> None:
        self._app, self._limits, self._uploads, self._refuse = app, limits, uploads, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self._limits, self._uploads, receive, send)
        try:
            body.expect(Headers(scope=scope))
            with suppress(_RefusedError):
                await self._app(scope, body.receive, body.send)
        except ServeError as error:
            body.error = error
        finally:
            self._uploads.remove(body.size)
        if body.error is not None and not body.is_answered:
            await self._refuse(scope, body.error)(scope, receive, send)


class _RefusedError(Exception):
    """Ends the application, whose answer is not sent."""


class _Body:
    """The body of a request: what of it has arrived, and why no more of it is read."""

    def __init__(self, limits: Limits, uploads: Uploads, receive: Receive, send: Send) -> None:
        self._limits, self._uploads, self._receive, self._send = limits, uploads, receive, send
        self._is_whole, self._end = True, 0.0
        self.size, self.is_answered = 0, False
        self.error: ServeError | None = None

    def expect(self, headers: Headers) -> None:
        """Read what the head says of the body.

        Raises:
            ServeError: it is too large, or there is no room for it.
        """
        length = headers.get("content-length", "0")
        self._is_whole = length == "0" and "transfer-encoding" not in headers
        self._end = asyncio.get_running_loop().time() + self._limits.silence
        if length.isdigit():
            self._check(int(length))

    def _check(self, more: int) -> None:
        most = self._limits.largest_body
        if self.size + more > most:
            raise ServeError(413, f"the body has more than {most} bytes, the most that this server takes")
        self._uploads.check(more)

    async def receive(self) -> Message:
        """The next part."""
        if self.error is not None:
            raise _RefusedError
        try:
            message = await (self._receive() if self._is_whole else self._in_time())
            self._count(len(message.get("body", b"")))
        except ServeError as error:
            self.error = error
            raise _RefusedError from None
        self._is_whole = self._is_whole or not message.get("more_body", False)
        return message

    def _count(self, more: int) -> None:
        if more:
            self._check(more)
            self._uploads.add(more)
            self.size += more

    async def _in_time(self) -> Message:
        silence, time = self._limits.silence, asyncio.get_running_loop().time
        try:
            message = await asyncio.wait_for(self._receive(), self._end - time())
            # What came fast gives no more time than `silence`: the rest could else take hours.
            self._end = min(self._end + len(message.get("body", b"")) / _SLOWEST, time() + silence)
            return message
        except asyncio.TimeoutError:
            raise ServeError(
                408,
                f"the body did not arrive: expected some of it within {silence:g} s, at {_SLOWEST} bytes a second",
                code="request_timeout",
                headers={"Connection": "close"},
            ) from None

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        # If there is any error while FastAPI reads a body, it answers that the body is wrong.
        if self.is_answered or self.error is None:
            self.is_answered = True
            await self._send(message)
