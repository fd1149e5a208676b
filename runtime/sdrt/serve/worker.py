"""The server's side of a worker: starts its process, sends it runs, and receives what it says."""

from __future__ import annotations

import asyncio
import atexit
import functools
import multiprocessing.util  # registers its function for the exit, which so runs after ours
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sdrt.serve.messages import Messages, packed, receive
from sdrt.serve.task import ImageTask
from sdrt.serve.worker_process import Cancel, Run, Stop, WorkerSetup, main

__all__ = ["Worker", "WorkerProcess"]

_CONTEXT = multiprocessing.get_context("spawn")
_INTERVAL = 0.005
"""Seconds between looks at a process that has closed its end, and ends."""
_NAME = "sdrt-worker"


@functools.cache
def _end_all_at_exit() -> None:
    """End the workers when this process ends. multiprocessing would send SIGTERM, which they ignore, and wait."""
    atexit.register(_end_all)


def _end_all() -> None:
    for process in multiprocessing.active_children():
        if process.name == _NAME:
            process.kill()


class WorkerProcess:
    """A process that makes images, and the socket to it. It begins to open its first model at once.

    It ends when this process does, or closes the socket.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = _CONTEXT.Process(
                target=main, args=(Messages(theirs), setup), name=_NAME, daemon=True
            )
            _end_all_at_exit()
            self.process.start()


class Worker:
    """The event loop's side of a process that makes images. All methods belong to the thread of the event loop.

    None of them waits for the process, which may hang: what it does not take is kept.

    Args:
        started: the process.
        heard: called in the event loop with the worker and each message from it, and with None when it has ended.
    """

    def __init__(self, started: WorkerProcess, heard: Callable[[Worker, Any], object]) -> None:
        self._heard, self._loop = heard, asyncio.get_running_loop()
        self._socket, self.process = started.socket, started.process
        self.number = 0
        self.open_models: tuple[str, ...] = ()
        self._writer: asyncio.StreamWriter | None = None
        self._kept: list[Any] = []
        self._listening = self._loop.create_task(self._listen())

    @property
    def pid(self) -> int | None:
        """The id of the process."""
        return self.process.pid

    def run(self, tasks: Sequence[ImageTask]) -> int:
        """Send a run, and return its number. If the process has just ended, `heard` says so."""
        self.number += 1
        self._send(Run(self.number, tasks))
        return self.number

    def cancel(self) -> None:
        """Stop the newest run."""
        self._send(Cancel(self.number))

    def stop(self) -> None:
        """Let the process end after its run."""
        self._send(Stop())

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()

    def _send(self, message: Any) -> None:
        if self._writer is None:
            self._kept.append(message)
        else:
            self._writer.write(packed(message))

    async def _listen(self) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            reader, self._writer = await asyncio.open_connection(sock=self._socket)
            for message in self._kept:
                self._send(message)
            while True:
                self._tell(await receive(reader))
        self._socket.close()
        while self.process.exitcode is None:
            await asyncio.sleep(_INTERVAL)
        self._tell(None)

    def _tell(self, message: Any) -> None:
        self._loop.call_soon(self._heard, self, message)
