"""The socket on which the server listens."""

from __future__ import annotations

import asyncio
import socket

from sdrt.serve.sockets import bound_socket


def test_answers_are_sent_at_once() -> None:
    """Else the second part of an answer waits 40 ms until the client has confirmed the first."""

    async def delays() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own = writer.get_extra_info("socket")
            seen.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = bound_socket("127.0.0.1", 0)
        async with await asyncio.start_server(accepted, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            found = await seen
            writer.close()
        return found

    assert asyncio.run(delays()) != 0
