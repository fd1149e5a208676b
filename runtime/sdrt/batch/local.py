"""Makes images in processes of this machine. They are those of `sdrt serve`."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from sdrt.batch.place import Answer, Group, Lost
from sdrt.common.interrupt import stop_if_asked
from sdrt.errors import SdrtError
from sdrt.serve.errors import error_of
from sdrt.serve.task import Failure
from sdrt.serve.worker_process import Done, Failed, Ready, Run, WorkerSetup, main

__all__ = ["LocalPlace"]

_CONTEXT = multiprocessing.get_context("spawn")
_INTERVAL = 0.5
"""Seconds after which a signal is noticed on systems where it does not interrupt a wait."""


class _Worker:
    """A process, and what it does now."""

    def __init__(self, setup: WorkerSetup) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=main, args=(theirs, setup), name="sdrt-batch", daemon=True)
        self.process.start()
        theirs.close()
        self.group: Group | None = None
        self.is_ready, self._number = False, 0

    def make(self, group: Group) -> Failure | None:
        """Let the process make a group. Returns why it cannot be asked for."""
        tasks = group.tasks()
        if isinstance(tasks, Failure):
            return tasks
        self._number += 1
        self.group = group
        with suppress(OSError):  # it has just ended, which the next wait says
            self.connection.send(Run(self._number, tasks))
        return None

    def end(self) -> None:
        """End the process now. It writes no files."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class LocalPlace:
    """Processes of this machine. One that ends is replaced.

    Args:
        setup: what they need to know.
        count: how many there are.
    """

    def __init__(self, setup: WorkerSetup, count: int) -> None:
        self._setup, self._count = setup, count
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalPlace:
        return self

    def __exit__(self, *_: object) -> None:
        while self._workers:
            self._workers.pop().end()

    def answers(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Answer]]:
        """See `Place`."""
        waiting = deque(groups)
        while waiting or any(worker.group for worker in self._workers):
            yield from self._feed(waiting)
            for ready in wait([worker.connection for worker in self._workers], _INTERVAL):
                worker = next(one for one in self._workers if one.connection is ready)
                if (answer := self._heard(worker)) is not None:
                    yield answer
            stop_if_asked()

    def _feed(self, waiting: deque[Group]) -> Iterator[tuple[Group, Answer]]:
        """Give each worker that has nothing to do a group. Start those that are missing."""
        while len(self._workers) < min(self._count, len(waiting) + len(self._workers)):
            self._workers.append(_Worker(self._setup))
        for worker in self._workers:
            while waiting and worker.group is None:
                group = waiting.popleft()
                if (failure := worker.make(group)) is not None:
                    yield group, failure

    def _heard(self, worker: _Worker) -> tuple[Group, Answer] | None:
        try:
            message: Any = worker.connection.recv()
        except (EOFError, OSError):
            return self._ended(worker)
        if isinstance(message, Ready):
            if message.failure is not None:
                raise error_of(message.failure)
            worker.is_ready = True
            return None
        if not isinstance(message, (Done, Failed)) or worker.group is None:
            return None  # a step
        group, worker.group = worker.group, None
        return group, message.made if isinstance(message, Done) else message.failure

    def _ended(self, worker: _Worker) -> tuple[Group, Answer] | None:
        """A process has ended by itself: out of memory, or by a fault of native code."""
        self._workers.remove(worker)
        worker.process.join()
        code, group = worker.process.exitcode, worker.group
        worker.connection.close()
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        if not worker.is_ready:
            raise SdrtError.advised(
                f"a worker ended {how} while it opened the model",
                "the system's log may say that memory ran out; `sdrt doctor` says what fits",
            )
        return None if group is None else (group, Lost(how))
