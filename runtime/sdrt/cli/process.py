"""What the process owes to those who started it: its streams and its signals."""

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
    """Let stdout write what its encoding lacks as an escape: a prompt may hold any character."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what is left. Raises `OSError` for stdout; Python itself would do so after the exit code is settled."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            # Python would try again at its end, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout:
                raise


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, SIGTERM ends the program as Ctrl-C does: what is half made is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised = {signal.SIGINT: KeyboardInterrupt(), signal.SIGTERM: SystemExit(TERMINATED)}
    # One that is ignored was ignored by whoever started the program (nohup): it stays so.
    before = {sent: signal.getsignal(sent) for sent in raised}
    mine = [sent for sent in raised if before[sent] is not signal.SIG_IGN]
    with asked_to_stop() as note:

        def stop(sent: int, _: object) -> NoReturn:
            error = raised[signal.Signals(sent)]
            note(error)
            raise error

        for sent in mine:
            signal.signal(sent, stop)
        try:
            yield
        finally:
            for sent in mine:
                signal.signal(sent, before[sent])
