"""Who may use the server, without one that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sdrt.errors import RequestError
from sdrt.serve.access import Access
from sdrt.serve.answers import refusal
from sdrt.serve.keys import Keys


def status_of(keys: Keys, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """The status of the answer to a request with these headers. 200 if it would be let through."""
    sent: list[Any] = []

    async def through(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/jobs",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(Access(through, keys, (), (), refusal)(scope, send, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"localhost:7860")], 200),
        ([(b"host", b"[::1]:7860")], 200),
        ([(b"host", b"[")], 403),
        ([(b"host", b"[::1")], 403),
        ([], 403),
        ([(b"host", b"localhost"), (b"origin", b"http://[")], 403),
        ([(b"host", b"localhost"), (b"origin", b"null")], 403),
    ],
)
def test_a_host_or_origin_that_is_no_address_is_refused(
    headers: Sequence[tuple[bytes, bytes]], status: int
) -> None:
    assert status_of(Keys(), headers) == status


def test_an_origin_that_is_no_address_is_refused_with_keys_too() -> None:
    assert status_of(Keys.of(["a-key-of-this-test"]), [(b"origin", b"http://[::1")]) == 403


def test_a_name_is_of_one_key_only() -> None:
    """Clients of two keys with one name would see each other's jobs."""
    given = Keys.of(["a" * 32])
    assert (given + Keys((("phone", b"x"),))).names == {"key-1", "phone"}
    with pytest.raises(RequestError, match="two keys are called key-1: choose another name"):
        given + Keys((("key-1", b"x"),))
