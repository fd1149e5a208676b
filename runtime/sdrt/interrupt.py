"""Long calls into native code that Ctrl-C must be able to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["interruptible"]

T = TypeVar("T")


def interruptible(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """Do `work`; on Ctrl-C, call `cancel`, wait for `work` to stop, and raise KeyboardInterrupt.

    A signal reaches Python only between bytecodes of the main thread, so there the work moves to another one.
    """
    if threading.current_thread() is not threading.main_thread():
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
    thread = threading.Thread(target=target, name="sdrt-run", daemon=False)
    try:
        thread.start()
        _wait(done)
    except KeyboardInterrupt:
        cancelled.set()
        cancel()
        # Ctrl-C may come while the thread is being made. One without an identity has not looked at `cancelled` yet,
        # so it will do nothing; any other may be at work.
        if thread.ident is not None:
            _wait(done)
        raise
    if errors:
        raise errors[0]
    return values[0]


def _wait(done: threading.Event) -> None:
    # On Windows an untimed wait is not interrupted by Ctrl-C.
    while not done.wait(0.2):
        continue
