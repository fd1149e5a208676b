"""The standard streams and the signals of the process."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from sdrt.common.interrupt import asked_to_stop

__all__ = ["flush", "printable", "stoppable"]

TERMINATED = 143  # 128 + SIGTERM, as shells count


def printable() -> None:
    """Make stdout escape characters that its encoding lacks, because a prompt may contain any character."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


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


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this block, SIGTERM ends the program like Ctrl-C: unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised = {signal.SIGINT: KeyboardInterrupt(), signal.SIGTERM: SystemExit(TERMINATED)}
    # A signal that is already ignored stays ignored, because the program was started that way (nohup).
    before = {sent: signal.getsignal(sent) for sent in raised}
    handled = [sent for sent in raised if before[sent] is not signal.SIG_IGN]
    with asked_to_stop() as note:

        def stop(sent: int, _: object) -> NoReturn:
            error = raised[signal.Signals(sent)]
            note(error)
            raise error

        for sent in handled:
            signal.signal(sent, stop)
        try:
            yield
        finally:
            for sent in handled:
                signal.signal(sent, before[sent])
