"""Spans of time that a run reports to a listener. Without a listener they cost almost nothing.

A span is a name, a start and an end, in seconds of `time.perf_counter`. Components report spans under their own names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

__all__ = ["DENOISE", "DOWNLOAD", "UPLOAD", "Listener", "listening", "span"]

Listener = Callable[[str, float, float], None]

DENOISE, UPLOAD, DOWNLOAD = "denoise", "upload", "download"
"""A step without the sampler's arithmetic; copying inputs into buffers; copying outputs out of them."""

_listener: ContextVar[Listener | None] = ContextVar("sdrt_spans", default=None)
_NOTHING = nullcontext()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener(name, start, end)` at the end of every span of this thread, within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def span(name: str) -> AbstractContextManager[None]:
    """A context manager that reports the time spent in its block."""
    listener = _listener.get()
    return _NOTHING if listener is None else _Span(name, listener)


class _Span(AbstractContextManager[None]):
    def __init__(self, name: str, listener: Listener) -> None:
        self._name, self._listener = name, listener

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._listener(self._name, self._start, time.perf_counter())
