"""The end of the program: it ends the work of threads that Python does not wait for.

Python stops daemon threads while they wait for the interpreter. Under them may be C++ or Rust code, which ends the
whole process with an abort when its thread is stopped. So no thread may be in such code when Python stops.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["at_work", "ends_with"]

_LONGEST = 30.0
"""Seconds to wait for threads that do not stop, such as one in a message handler of the user's."""
_INTERVAL = 0.005

_lock = threading.Lock()
_working: Counter[int] = Counter()
_stops: dict[object, Callable[[], None]] = {}
_is_ending = False


@contextmanager
def at_work() -> Iterator[None]:
    """Mark the work of this thread. The end of the program waits for it.

    Raises:
        SystemExit: the program is ending, and this is not its main thread. Threads end by it without a message.
    """
    _end_thread()
    own = threading.get_ident()
    with _lock:
        _working[own] += 1
    try:
        yield
    finally:
        with _lock:
            _working[own] -= 1
            if not _working[own]:
                del _working[own]
        # Also after a failure, because the end of the program may have caused it.
        _end_thread()


@contextmanager
def ends_with(stop: Callable[[], None]) -> Iterator[None]:
    """Mark native code. The end of the program calls `stop` until the code has ended."""
    key = object()
    with _lock:
        _stops[key] = stop
    try:
        yield
    finally:
        with _lock:
            del _stops[key]


def _end_thread() -> None:
    if _is_ending and threading.current_thread() is not threading.main_thread():
        raise SystemExit


def _end() -> None:
    """Stop all native code, and wait until every thread but this one has left it.

    Python has waited for all threads but daemons by now.
    """
    global _is_ending
    _is_ending = True
    own, deadline = threading.get_ident(), time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        with _lock:
            others, stops = [one for one in _working if one != own], list(_stops.values())
        if not others and not stops:
            return
        for stop in stops:
            stop()
        time.sleep(_INTERVAL)


def _forget() -> None:
    """Forget the threads of the process that this one was forked from."""
    global _lock
    _lock = threading.Lock()
    _working.clear()
    _stops.clear()


# Early, because what is registered later runs earlier: other libraries and the program may still make images then.
atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
