"""Messages between the server and its workers: pickles with their length before them, through a socket.

`multiprocessing.Pipe` would need threads beside the event loop. A message would then wait until its thread gets the
interpreter's lock. That took milliseconds when it was measured.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from typing import Any

__all__ = ["Messages", "packed", "pair", "receive"]

_LENGTH = struct.Struct("!Q")


def packed(message: Any) -> bytes:
    """The bytes of a message."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next message.

    Raises:
        asyncio.IncompleteReadError: the other side is gone.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return pickle.loads(await reader.readexactly(length))


def pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected, of which each sends at once."""
    both = socket.socketpair()
    for end in both:
        if end.family in (socket.AF_INET, socket.AF_INET6):  # on Windows
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return both


class Messages:
    """The worker's end, with the methods of `multiprocessing`'s connections. It can be sent to a new process."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, message: Any) -> None:
        """Send a message. Raises `OSError` if the other side is gone."""
        self._socket.sendall(packed(message))

    def recv(self) -> Any:
        """Wait for a message. Raises `EOFError` or `OSError` if the other side is gone."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return pickle.loads(self._exactly(length))

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = self._socket.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]
        return data
