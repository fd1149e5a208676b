"""Work that another thread does before its result is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sdrt.common.cancelling import INTERVAL, cancellable, cancelling, stop_if_cancelled
from sdrt.common.program_end import at_work

__all__ = ["Ahead"]


class Ahead:
    """Calls `work` in another thread. It goes on if this thread's run is cancelled, because the next run needs it too.

    Raises `RuntimeError` if there can be no other thread.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._done, self._given_up = threading.Event(), threading.Event()
        self._made: Any = None
        # A daemon, because the end of the program stops the work.
        threading.Thread(target=self._run, args=(work,), name="sdrt-ahead", daemon=True).start()

    def result(self) -> Any:
        """Wait for what `work` returned. None if it failed: then the caller does the work itself, and meets the error.

        Raises `RunCancelledError` if this thread's run is cancelled meanwhile.
        """
        while not self._done.wait(INTERVAL if cancellable() else 0.2):
            stop_if_cancelled()
        made, self._made = self._made, None
        return made

    def give_up(self) -> None:
        """Stop the work, and wait until it has ended."""
        self._given_up.set()
        self._done.wait()
        self._made = None

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            with cancelling(self._given_up.is_set), at_work():
                self._made = work()
        except BaseException:  # see `result`
            self._made = None
        finally:
            self._done.set()
