"""The standard streams and the signals of the process."""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from sdrt.common.interrupt import asked_to_stop
from sdrt.errors import RequestError

__all__ = ["flush", "ignore_signals", "keep_signals", "printable", "standard_input", "stoppable"]

TERMINATED = 143  # 128 + SIGTERM, as shells count
_PAUSE = 1.0
"""Seconds in which another signal is taken for the same one."""
_PATIENCE = 3.0
"""Seconds in which the program should end by itself."""
_handled: list[signal.Signals] = []
_keeps_signals = False


def printable() -> None:
    """Make stdout escape characters that its encoding lacks, because a prompt may contain any character."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


def standard_input() -> BinaryIO:
    """The bytes of standard input. Raises `RequestError` if the program was started without it."""
    if sys.stdin is None:
        raise RequestError.expected("standard input is closed", "a file or a pipe, as - means it")
    return sys.stdin.buffer


def flush() -> None:
    """Flush both streams. Raises `OSError` for stdout now; Python would raise it after the exit code is set."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            # Otherwise Python would flush again at exit, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout:
                raise


def keep_signals() -> None:
    """Say that this process belongs to the command: signals stay handled after the command, until the process ends."""
    global _keeps_signals
    _keeps_signals = True
    # Early, so that it is called late: then Python gives its handlers up, and a signal would change the exit code.
    atexit.register(_ignore_for_good)


def _ignore_for_good() -> None:
    for sent in _handled:
        signal.signal(sent, signal.SIG_IGN)


def ignore_signals() -> None:
    """Ignore signals that `stoppable` handles, because the program is ending. After some seconds, they end it at once.

    Otherwise Ctrl-C would print a traceback while Python tidies up.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    began = time.monotonic()

    def end(sent: int, _: object) -> None:
        if time.monotonic() - began > _PATIENCE:
            os._exit(128 + sent)

    for sent in _handled:
        signal.signal(sent, end)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this block, SIGTERM ends the program like Ctrl-C: unfinished files are removed.

    People press Ctrl-C twice. What follows within a second is ignored, so that it does not disturb the removal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised = {signal.SIGINT: KeyboardInterrupt(), signal.SIGTERM: SystemExit(TERMINATED)}
    # A signal that is already ignored stays ignored, because the program was started that way (nohup).
    before = {sent: signal.getsignal(sent) for sent in raised}
    _handled[:] = [sent for sent in raised if before[sent] is not signal.SIG_IGN]
    with asked_to_stop() as note:
        last = -_PAUSE

        def stop(sent: int, _: object) -> None:
            nonlocal last
            if time.monotonic() - last < _PAUSE:
                return
            last, error = time.monotonic(), raised[signal.Signals(sent)]
            note(error)
            raise error

        for sent in _handled:
            signal.signal(sent, stop)
        try:
            yield
        finally:
            for sent in () if _keeps_signals else _handled:
                signal.signal(sent, before[sent])
