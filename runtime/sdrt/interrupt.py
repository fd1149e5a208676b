"""Ctrl-C, where native code or somebody else's code stands between it and us."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

__all__ = ["asked_to_stop", "interruptible", "stop_if_asked", "was_interrupted"]

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


def interruptible(
    work: Callable[[], T], cancel: Callable[[], None], thread: ThreadPoolExecutor | None = None
) -> T:
    """Do `work`; on Ctrl-C, call `cancel`, wait for `work` to stop, and raise KeyboardInterrupt.

    A signal reaches Python only between bytecodes of the main thread, so there the work moves to another one; work that
    has to be done by one thread moves to `thread`, of one worker, from any. It has stopped when this returns or raises,
    so the caller's buffers are the caller's again.
    """
    if thread is None and threading.current_thread() is not threading.main_thread():
        return work()
    done, cancelled = threading.Event(), threading.Event()
    values: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            if not cancelled.is_set():
                values.append(work())
        except BaseException as error:  # handed to the waiting thread, which raises it
            errors.append(error)
        finally:
            done.set()

    # Not a daemon: Python must not end under native code that is still running.
    started = threading.Thread(target=target, name="sdrt-run", daemon=False)
    given: list[object] = []
    try:
        if thread is None:
            started.start()
        else:
            given.append(thread.submit(target))
        _wait(done)
    except BaseException:
        cancelled.set()
        # Ctrl-C may come while the thread is being made, or handed the work. One without an identity has not looked at
        # `cancelled` yet, so it will do nothing; any other may be at work.
        while (given or started.ident is not None) and not done.is_set():
            # Pressed again: the work still uses the buffers, so wait on.
            with suppress(KeyboardInterrupt, SystemExit):
                cancel()
                _wait(done)
        raise
    if errors:
        raise errors[0]
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
