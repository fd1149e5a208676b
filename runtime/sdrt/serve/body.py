"""Bodies of requests: strict JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from sdrt.serve.errors import ServeError

__all__ = ["StrictRoute", "loads"]

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
