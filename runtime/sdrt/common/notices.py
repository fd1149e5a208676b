"""Messages to the user."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdrt.common.visible import visible

if TYPE_CHECKING:
    from sdrt.common.progress import Board

__all__ = ["Notices", "Notify", "SdrtWarning"]

Notify = Callable[[str], None]


class SdrtWarning(UserWarning):
    """Something that the user should know. The work goes on."""


class Notices:
    """Sends messages to `notify`, or to `warnings` and stderr without it."""

    def __init__(self, notify: Notify | None = None) -> None:
        self._notify = notify

    def warn(self, message: str) -> None:
        """Tell the user something that changes the result."""
        if self._notify is None:
            _warn_caller(message)
        else:
            self._notify(message)

    def inform(self, message: str) -> None:
        """Tell the user what takes time."""
        if self._notify is None:
            from sdrt.common.progress import Display

            Display().notice(message)
        else:
            self._notify(message)

    @contextmanager
    def board(self) -> Iterator[Board]:
        """Show the progress of work in named parts."""
        from sdrt.common.progress import Display, PlainBoard

        if self._notify is not None:
            yield PlainBoard(self._notify)
            return
        with Display().board() as board:
            yield board


def _warn_caller(message: str) -> None:
    """Warn at the caller's line outside this package, every time: `warnings.warn` warns once for each line."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "sdrt":
        frame = frame.f_back
    # Python prints it as it is.
    shown = visible(message)
    warnings.warn_explicit(shown, SdrtWarning, frame.f_code.co_filename, frame.f_lineno, registry={})
