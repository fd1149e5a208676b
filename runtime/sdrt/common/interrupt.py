"""Ctrl-C, where native code or somebody else's code stands between it and us."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["Worker", "asked_to_stop", "interruptible", "stop_if_asked", "was_interrupted"]

T = TypeVar("T")

_asked: list[BaseException] = []


@contextmanager
def asked_to_stop() -> Iterator[Callable[[BaseException], None]]:
    """Yield what a signal handler calls with the exception that it raises, for `stop_if_asked` within."""
    _asked.clear()
    try:
        yield _asked.append
    finally:
        _asked.clear()


def stop_if_asked() -> None:
    """Raise what a signal handler raised before: torch, when traced, may swallow it, and go on for minutes."""
    if _asked:
        raise _asked[-1]


class Worker:
    """A thread that does one piece of work after another, for as long as this lives.

    Not an executor of the standard library's, which refuses work as soon as the main thread has ended, when others may
    still be at theirs.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, as it waits for work when Python ends: whoever gave it some waits for that.
        threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True).start()
        weakref.finalize(self, self._queue.put, None)

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done after what was given before. `work` raises nothing."""
        self._queue.put(work)


def _work(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := queue.get()) is not None:
        work()
        # What it refers to is not to live until there is more to do.
        del work


def interruptible(work: Callable[[], T], cancel: Callable[[], None], worker: Worker | None = None) -> T:
    """Do `work`; on Ctrl-C, call `cancel`, wait for `work` to stop, and raise KeyboardInterrupt.

    A signal reaches Python only between bytecodes of the main thread, so there the work moves to another one; work that
    has to be done by one thread moves to `worker`, from any. It has stopped, or will not begin, when this returns or
    raises, so the caller's buffers are the caller's again.
    """
    if worker is None and threading.current_thread() is not threading.main_thread():
        return work()
    entered, done, cancelled = threading.Event(), threading.Event(), threading.Event()
    values: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        # First: whoever cancels before it sees this need not wait, as what follows sees that.
        entered.set()
        try:
            if not cancelled.is_set():
                values.append(work())
        except BaseException as error:  # handed to the waiting thread, which raises it
            errors.append(error)
        finally:
            done.set()

    try:
        if worker is None:
            # Not a daemon: Python must not end under native code that is still running.
            threading.Thread(target=target, name="sdrt-run", daemon=False).start()
        else:
            worker.submit(target)
        _wait(done)
    except BaseException:
        cancelled.set()
        while entered.is_set() and not done.is_set():
            # Pressed again: the work still uses the buffers, so wait on.
            with suppress(KeyboardInterrupt, SystemExit):
                cancel()
                _wait(done)
        raise
    if errors:
        try:
            raise errors[0]
        finally:
            # Its traceback has this frame: together they would live until Python looks for cycles.
            errors.clear()
    return values[0]


def was_interrupted(error: BaseException | None) -> bool:
    """Whether `error` comes of Ctrl-C: native modules that it meets while they load fail to import instead."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _wait(done: threading.Event) -> None:
    # On Windows an untimed wait is not interrupted by Ctrl-C.
    while not done.wait(0.2):
        continue
