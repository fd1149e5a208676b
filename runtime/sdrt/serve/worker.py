"""The server's side of a worker: starts its process, sends it runs, and receives what it says."""

from __future__ import annotations

import atexit
import functools
import multiprocessing.util  # registers its exit function before ours, so it runs after ours
from collections.abc import Sequence

from sdrt.serve.link import Link
from sdrt.serve.messages import Messages, pair
from sdrt.serve.task import ImageTask
from sdrt.serve.worker_process import Cancel, Run, Stop, WorkerSetup, main
from sdrt.serve.workers import Heard

__all__ = ["LocalWorker", "LocalWorkers", "WorkerProcess"]

_CONTEXT = multiprocessing.get_context("spawn")
_NAME = "sdrt-worker"


@functools.cache
def _end_all_at_exit() -> None:
    """End the workers when this process ends. multiprocessing would send SIGTERM, which they ignore, and wait."""
    atexit.register(_end_all)


def _end_all() -> None:
    for process in multiprocessing.active_children():
        if process.name == _NAME:
            process.kill()


class LocalWorkers:
    """Processes of this machine. When entered, they begin to open their first models.

    Args:
        setups: for each worker, what it needs to know.
    """

    def __init__(self, setups: Sequence[WorkerSetup]) -> None:
        self._setups = setups
        self._early: dict[int, WorkerProcess] = {}

    def __enter__(self) -> LocalWorkers:
        self._early = {place: WorkerProcess(setup) for place, setup in enumerate(self._setups)}
        return self

    def __exit__(self, *_: object) -> None:
        # The server ends those that it took.
        while self._early:
            self._early.popitem()[1].process.kill()

    @property
    def places(self) -> int:
        """See `Workers`."""
        return len(self._setups)

    @property
    def running(self) -> None:
        """See `Workers`: one for each place."""

    def start(self, place: int, heard: Heard) -> LocalWorker:
        """See `Workers`."""
        early = self._early.pop(place) if place in self._early else None
        return LocalWorker(early or WorkerProcess(self._setups[place]), heard)


class WorkerProcess:
    """A process that makes images, and the socket to it. It begins to open its first model at once.

    It ends when this process does, or closes the socket.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.socket, theirs = pair()
        with theirs:
            self.process = _CONTEXT.Process(
                target=main, args=(Messages(theirs), setup), name=_NAME, daemon=True
            )
            _end_all_at_exit()
            self.process.start()


class LocalWorker:
    """The event loop's side of a process that makes images. All methods belong to the thread of the event loop.

    Args:
        started: the process.
        heard: called in the event loop with the worker and each message from it, and with None when it has ended.
    """

    def __init__(self, started: WorkerProcess, heard: Heard) -> None:
        self.process = started.process
        self.number = 0
        self.open_models: tuple[str, ...] = ()
        self._link = Link(started.socket, started.process, lambda message: heard(self, message))

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"worker {self.process.pid}"

    @property
    def pid(self) -> int | None:
        """The id of the process."""
        return self.process.pid

    @property
    def end(self) -> str:
        """How it ended."""
        return f"ended with code {self.process.exitcode}"

    def run(self, tasks: Sequence[ImageTask]) -> int:
        """Send a run, and return its number. If the process has just ended, `heard` says so."""
        self.number += 1
        self._link.send(Run(self.number, tasks))
        return self.number

    def cancel(self) -> None:
        """Stop the newest run."""
        self._link.send(Cancel(self.number))

    def stop(self) -> None:
        """Let the process end after its run."""
        self._link.send(Stop())

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()
