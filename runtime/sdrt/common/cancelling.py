"""Cancelling a run from outside: a token that other threads set, such as a `threading.Event`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from sdrt.common.messages import wrong_value
from sdrt.errors import RunCancelledError

__all__ = ["INTERVAL", "Cancel", "cancellable", "cancelling", "held", "is_set_of", "stop_if_cancelled"]

INTERVAL = 0.01
"""Seconds between two looks at a token, while native code runs or a lock is waited for."""


class _Token(Protocol):
    def is_set(self) -> bool: ...


Cancel = _Token | Callable[[], object]
"""An object with `is_set()`, such as a `threading.Event`, or a function that says whether to stop."""

_is_set: ContextVar[Callable[[], object] | None] = ContextVar("sdrt_cancel", default=None)


def is_set_of(cancel: object) -> Callable[[], object] | None:
    """Return the function that says whether `cancel` is set. None for None. Raises `RequestError` for another type."""
    if cancel is None:
        return None
    look = getattr(cancel, "is_set", cancel)
    if not callable(look) or isinstance(cancel, type):
        raise wrong_value(
            "cancel", cancel, "an object with is_set(), such as threading.Event(), or a function"
        )
    found: Callable[[], object] = look
    return found


@contextmanager
def cancelling(is_set: Callable[[], object] | None) -> Iterator[None]:
    """Within this block, work of this thread stops when `is_set()` is true."""
    token = _is_set.set(is_set)
    try:
        yield
    finally:
        _is_set.reset(token)


def cancellable() -> bool:
    """Tell whether something may cancel the work of this thread."""
    return _is_set.get() is not None


def stop_if_cancelled() -> None:
    """Raise `RunCancelledError` if this thread's run is cancelled."""
    is_set = _is_set.get()
    if is_set is not None and is_set():
        raise RunCancelledError("the run was cancelled", argument="cancel")


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Hold `lock`. A cancelled run does not wait for it."""
    # On Windows, Ctrl-C does not end a wait.
    while not lock.acquire(timeout=INTERVAL if cancellable() or os.name == "nt" else -1):
        stop_if_cancelled()
    try:
        yield
    finally:
        lock.release()
