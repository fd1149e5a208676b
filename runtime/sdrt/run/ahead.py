"""Work that another thread does before its result is needed."""

from __future__ import annotations

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
        self._given_up = threading.Event()
        self._made: Any = None
        self._messages: list[Callable[[], None]] = []
        # A daemon, because the end of the program stops the work.
        self._thread = threading.Thread(target=self._run, args=(work,), name="sdrt-ahead", daemon=True)
        self._thread.start()

    def result(self) -> Any:
        """Wait for what `work` returned, and tell its messages.

        None if it failed, or if this process was forked meanwhile. Then the caller does the work itself, and meets the
        error.

        Raises `RunCancelledError` if this thread's run is cancelled meanwhile.
        """
        # A forked process has no such thread, and Python knows that it is not alive there.
        while self._thread.is_alive():
            self._thread.join(INTERVAL if cancellable() else 0.2)
            stop_if_cancelled()
        while self._messages:
            self._messages.pop(0)()
        return self._made

    def give_up(self) -> None:
        """Stop the work, and wait until it has ended."""
        self._given_up.set()
        while self._thread.is_alive():
            # On Windows, Ctrl-C does not interrupt a wait without a timeout.
            self._thread.join(0.2)
        self._made = None

    def _run(self, work: Callable[[], Any]) -> None:
        # What fails here fails again for the caller: see `result`.
        with (
            suppress(BaseException),
            cancelling(self._given_up.is_set),
            told_later() as self._messages,
            at_work(),
        ):
            self._made = work()
