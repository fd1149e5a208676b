"""A socket to another process, for which the event loop never waits."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from sdrt.serve.messages import packed, receive

__all__ = ["Link"]

log = logging.getLogger("sdrt.serve")

_INTERVAL = 0.005
"""Seconds between looks at whether a process that has closed its end has ended."""


class Link:
    """Sends and receives messages. It belongs to the event loop that makes it.

    Messages that a hanging process does not take are kept.

    Args:
        end: this side's end of a pair of sockets.
        process: the process at the other end.
        heard: called in the event loop with each message, and with None when the process has ended.
    """

    def __init__(self, end: socket.socket, process: BaseProcess, heard: Callable[[Any], object]) -> None:
        self._socket, self._process, self._heard = end, process, heard
        self._loop = asyncio.get_running_loop()
        self._writer: asyncio.StreamWriter | None = None
        self._kept: list[Any] = []
        self._listening = self._loop.create_task(self._listen())

    def send(self, message: Any) -> None:
        """Send a message. If the process has just ended, `heard` says so."""
        if self._writer is None:
            self._kept.append(message)
        else:
            self._writer.write(packed(message))

    async def _listen(self) -> None:
        try:
            await self._receive()
        except (asyncio.IncompleteReadError, OSError):  # the process has ended, or is about to
            pass
        except Exception:  # unpickling may raise any, and a run without its answer would never end
            log.exception("a message of process %s cannot be read, so it is ended", self._process.pid)
            self._process.kill()
        finally:  # also when the loop ends before the process
            if self._writer is not None:
                self._writer.close()
        while self._process.exitcode is None:
            await asyncio.sleep(_INTERVAL)
        self._tell(None)

    async def _receive(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        while self._kept:
            self.send(self._kept.pop(0))
        while True:
            self._tell(await receive(reader))

    def _tell(self, message: Any) -> None:
        self._loop.call_soon(self._heard, message)
