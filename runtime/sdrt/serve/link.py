"""A pipe to another process, for which the event loop never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any

__all__ = ["Link"]


class Link:
    """Sends and receives messages with a thread for each. It belongs to the event loop that makes it.

    Args:
        connection: the pipe.
        process: the process at its other end.
        heard: called in the event loop with each message, and with None when the process has ended.
    """

    def __init__(self, connection: Connection, process: BaseProcess, heard: Callable[[Any], object]) -> None:
        self._connection, self._process, self._heard = connection, process, heard
        self._loop = asyncio.get_running_loop()
        self._messages: SimpleQueue[Any] = SimpleQueue()
        for task in (self._listen, self._speak):
            threading.Thread(target=task, name="sdrt-worker", daemon=True).start()

    def send(self, message: Any) -> None:
        """Send a message. If the process has just ended, `heard` says so."""
        self._messages.put(message)

    def _speak(self) -> None:
        """Send the messages. A pipe to a process that hangs is soon full, and the event loop must not wait for it."""
        with suppress(OSError):
            while (message := self._messages.get()) is not None:
                self._connection.send(message)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._tell(self._connection.recv())
        self._messages.put(None)
        self._process.join()
        self._tell(None)

    def _tell(self, message: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._heard, message)
