"""Ctrl-C while native code or a library's code runs."""

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
    """Yield a function for signal handlers: `stop_if_asked` raises the exception that they pass to it."""
    _asked.clear()
    try:
        yield _asked.append
    finally:
        _asked.clear()


def stop_if_asked() -> None:
    """Raise the exception of the last signal handler again: torch's tracer may swallow it and go on for minutes."""
    if _asked:
        raise _asked[-1]


class Worker:
    """A thread that does one piece of work after another, until this object is deleted.

    An executor of the standard library would refuse work once the main thread has ended, though other threads may still
    be running.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, because it may be idle when Python ends. Callers wait for the work that they submit.
        threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True).start()
        weakref.finalize(self, self._queue.put, None)

    def submit(self, work: Callable[[], None]) -> None:
        """Queue `work`, which must not raise."""
        self._queue.put(work)


def _work(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := queue.get()) is not None:
        work()
        # Otherwise its objects would live until the next piece of work.
        del work


def interruptible(work: Callable[[], T], cancel: Callable[[], None], worker: Worker | None = None) -> T:
    """Do `work`. On Ctrl-C, call `cancel`, wait for `work` to stop, and raise KeyboardInterrupt.

    Python handles signals only between bytecodes of the main thread, so work of the main thread moves to another
    thread. With `worker`, the work of every thread moves there. When this returns or raises, the work has stopped or
    will never begin, so the caller may use its buffers again.
    """
    if worker is None and threading.current_thread() is not threading.main_thread():
        return work()
    entered, done, cancelled = threading.Event(), threading.Event(), threading.Event()
    values: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        # First, so that a caller who cancels before this need not wait: the check below sees `cancelled`.
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
            # Wait on if Ctrl-C is pressed again: the work still uses the buffers.
            with suppress(KeyboardInterrupt, SystemExit):
                cancel()
                _wait(done)
        raise
    if errors:
        try:
            raise errors[0]
        finally:
            # The traceback refers to this frame: without this, both would live until the garbage collector runs.
            errors.clear()
    return values[0]


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused `error`: a native module that it interrupts during import raises ImportError."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _wait(done: threading.Event) -> None:
    # On Windows, Ctrl-C does not interrupt a wait without a timeout.
    while not done.wait(0.2):
        continue
