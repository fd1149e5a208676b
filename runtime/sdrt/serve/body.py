"""Bodies of requests: strict JSON, in bounded memory."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdrt.serve.errors import ServeError

__all__ = ["BodyLimit", "StrictRoute", "loads"]

_DEEPEST = 64
_MOST_MARKS = 100_000
"""Commas and brackets: a body of nothing else would become many times its size, and block other requests."""
_SURROGATES = (rb"\ud", rb"\uD", b"\xed")
"""What may begin half of a pair of code units, written as an escape or as bytes."""


def loads(text: bytes) -> Any:
    """Read JSON. Unlike Python's own reader, refuse NaN, infinity, repeated names, deep nesting and half characters.

    Raises:
        ServeError: it is something else, or has too many values.
    """
    if sum(map(text.count, (b",", b"[", b"{"))) > _MOST_MARKS:
        raise ServeError(
            400,
            f"the JSON has more than {_MOST_MARKS} commas and brackets, the most that this server reads",
            code="invalid_json",
        )
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique)
        _check_depth(value)
        if any(mark in text for mark in _SURROGATES):
            # No answer could repeat half of a pair.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ServeError(400, f"the JSON is nested more than {_DEEPEST} deep", code="invalid_json") from None
    except UnicodeError:
        raise ServeError(400, "the body is not UTF-8: expected JSON", code="invalid_json") from None
    except ValueError as error:
        raise ServeError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    return value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text[:64])


def _refuse(constant: str) -> Any:
    raise ServeError(
        400, f"the JSON has {constant}, which is no JSON: expected a number", code="invalid_json"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise ServeError(400, f"the JSON has {twice[:64]!r} twice", field=twice[:64], code="invalid_json")
    return found


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        if not level:
            return
        level = [one for some in level for one in _inside(some)]
    raise RecursionError


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body, as `loads` reads it."""
        if not hasattr(self, "_json"):
            self._json = loads(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that reads JSON strictly."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The handler with a request whose JSON is strict."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Any:
            strict = _StrictRequest(request.scope, request.receive)
            # Many clients send the type with every request, also of one without a body.
            if self.body_field is not None and "json" in request.headers.get("content-type", ""):
                # FastAPI would say of every error in it that there was one, and no more.
                await strict.json()
            return await handler(strict)

        return handle


class _TooLargeError(Exception):
    pass


class BodyLimit:
    """Refuses bodies of more than `most` bytes, before they are in memory.

    Args:
        app: the application.
        most: the limit in bytes.
        refuse: the application that answers in its place.
    """

    def __init__(self, app: ASGIApp, most: int, refuse: Callable[[Scope, ServeError], ASGIApp]) -> None:
        self._app, self._most, self._refuse = app, most, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = ServeError(413, f"the body has more than {self._most} bytes, the most that this server takes")
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self._most:
            await self._refuse(scope, error)(scope, receive, send)
            return
        started, count = False, 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self._most:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            # FastAPI takes any error while it reads a body for a wrong body, and answers that.
            if started or count <= self._most:
                started = True
                await send(message)

        with suppress(_TooLargeError):
            await self._app(scope, counted, noted)
        if count > self._most and not started:
            await self._refuse(scope, error)(scope, receive, send)
