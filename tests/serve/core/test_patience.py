"""Clients that do not read their answers. The server is uvicorn with another application, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn

from sdrt.serve.patient_protocol import protocol
from sdrt.serve.sockets import bound_socket

PATIENCE = 0.3  # seconds
LENGTH = 20_000_000
Client = Callable[[uvicorn.Server, asyncio.StreamReader], Coroutine[Any, Any, None]]


async def answers(scope: Any, receive: Any, send: Any) -> None:
    """A long answer."""
    headers = [(b"content-length", str(LENGTH).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(LENGTH)})


def asked(client: Client) -> None:
    """Run a client of which the request is sent."""

    async def test() -> None:
        listening = bound_socket("127.0.0.1", 0)
        config = uvicorn.Config(
            answers, loop="asyncio", http=protocol(PATIENCE), lifespan="off", log_config=None
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname(), limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            await client(server, reader)
        finally:
            writer.close()
            server.should_exit = True
            await serving

    asyncio.run(test())


def test_a_client_that_reads_nothing_is_let_go() -> None:
    async def client(server: uvicorn.Server, reader: asyncio.StreamReader) -> None:
        while not server.server_state.connections:
            await asyncio.sleep(0.01)
        while server.server_state.connections:
            await asyncio.sleep(0.01)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(LENGTH)

    asked(client)


def test_a_client_that_reads_slowly_gets_all_of_it() -> None:
    async def client(server: uvicorn.Server, reader: asyncio.StreamReader) -> None:
        await reader.readuntil(b"\r\n\r\n")
        loop = asyncio.get_running_loop()
        started, got = loop.time(), 0
        while got < LENGTH:
            part = await reader.read(200_000)
            assert part
            got += len(part)
            await asyncio.sleep(0.005)
        assert loop.time() - started > PATIENCE

    asked(client)
