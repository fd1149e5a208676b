"""The server's side of a worker: starts its process, sends it runs, and receives what it says."""

from __future__ import annotations

import asyncio
import atexit
import functools
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from sdrt.serve.task import ImageTask
from sdrt.serve.worker_process import Cancel, Run, Stop, WorkerSetup, main

__all__ = ["Worker", "WorkerProcess"]

_CONTEXT = multiprocessing.get_context("spawn")
_NAME = "sdrt-worker"


@functools.cache
def _end_all_at_exit() -> None:
    """End the workers when this process ends. multiprocessing would send SIGTERM, which they ignore, and wait."""
    atexit.register(_end_all)  # runs before what multiprocessing registered when it made the pipe


def _end_all() -> None:
    for process in multiprocessing.active_children():
        if process.name == _NAME:
            process.kill()


class WorkerProcess:
    """A process that makes images, and the pipe to it. It begins to open its first model at once.

    It ends when this process does, or lets go of the pipe.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=main, args=(theirs, setup), name=_NAME, daemon=True)
        _end_all_at_exit()
        self.process.start()
        theirs.close()


class Worker:
    """The event loop's side of a process that makes images. All methods belong to the thread of the event loop.

    Args:
        started: the process.
        heard: called in the event loop with the worker and each message from it, and with None when it has ended.
    """

    def __init__(self, started: WorkerProcess, heard: Callable[[Worker, Any], object]) -> None:
        self._heard, self._loop = heard, asyncio.get_running_loop()
        self._connection, self.process = started.connection, started.process
        self.number = 0
        self.open_models: tuple[str, ...] = ()
        self._messages: SimpleQueue[Any] = SimpleQueue()
        for task in (self._listen, self._speak):
            threading.Thread(target=task, name="sdrt-worker", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The id of the process."""
        return self.process.pid

    def run(self, tasks: Sequence[ImageTask]) -> int:
        """Send a run, and return its number. If the process has just ended, `heard` says so."""
        self.number += 1
        self._messages.put(Run(self.number, tasks))
        return self.number

    def cancel(self) -> None:
        """Stop the newest run."""
        self._messages.put(Cancel(self.number))

    def stop(self) -> None:
        """Let the process end after its run."""
        self._messages.put(Stop())

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()

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
        self.process.join()
        self._tell(None)

    def _tell(self, message: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._heard, self, message)
