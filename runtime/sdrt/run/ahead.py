"""Work that another thread does before its result is needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sdrt.common.cancelling import INTERVAL, cancellable, cancelling, stop_if_cancelled
from sdrt.common.notices import told_later
from sdrt.common.program_end import at_work

__all__ = ["Ahead"]


class Ahead:
    """Calls `work` in another thread. It goes on if this thread's run is cancelled, because the next run needs it too.

    Raises `RuntimeError` if there can be no other thread.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._done, self._given_up = threading.Event(), threading.Event()
        self._process = os.getpid()
        self._made: Any = None
        self._messages: list[Callable[[], None]] = []
        # A daemon, because the end of the program stops the work.
        threading.Thread(target=self._run, args=(work,), name="sdrt-ahead", daemon=True).start()

    def result(self) -> Any:
        """Wait for what `work` returned, and tell its messages.

        None if it failed, or if this process was forked meanwhile. Then the caller does the work itself, and meets the
        error.

        Raises `RunCancelledError` if this thread's run is cancelled meanwhile.
        """
        while not self._ended(INTERVAL if cancellable() else 0.2):
            stop_if_cancelled()
        while self._messages:
            self._messages.pop(0)()
        return self._made

    def give_up(self) -> None:
        """Stop the work, and wait until it has ended."""
        self._given_up.set()
        # On Windows, Ctrl-C does not interrupt a wait without a timeout.
        while not self._ended(0.2):
            pass
        self._made = None

    def _ended(self, seconds: float) -> bool:
        """Wait at most this long for the thread's end. A forked process does not have the thread."""
        return self._done.wait(seconds) or os.getpid() != self._process

    def _run(self, work: Callable[[], Any]) -> None:
        # What fails here fails again for the caller: see `result`. `at_work` raises SystemExit as the program ends.
        try:
            with (
                suppress(Exception, SystemExit),
                cancelling(self._given_up.is_set),
                told_later() as self._messages,
                at_work(),
            ):
                self._made = work()
        finally:
            self._done.set()
