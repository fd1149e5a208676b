"""Where messages to the user go."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdrt.common.progress import Board

__all__ = ["Notices", "Notify", "SdrtWarning"]

Notify = Callable[[str], None]


class SdrtWarning(UserWarning):
    """Something the user should know about and that did not stop the work."""


class Notices:
    """Where messages to the user go: to `notify` when given, else to `warnings` and stderr."""

    def __init__(self, notify: Notify | None = None) -> None:
        self._notify = notify

    def warn(self, message: str) -> None:
        """Say something that changes what the user gets."""
        if self._notify is None:
            _warn_caller(message)
        else:
            self._notify(message)

    def inform(self, message: str) -> None:
        """Say what is taking time."""
        if self._notify is None:
            from sdrt.common.progress import Display

            Display().notice(message)
        else:
            self._notify(message)

    @contextmanager
    def board(self) -> Iterator[Board]:
        """Show the parts of what is taking time."""
        from sdrt.common.progress import Display, PlainBoard

        if self._notify is not None:
            yield PlainBoard(self._notify)
            return
        with Display().board() as board:
            yield board


def _warn_caller(message: str) -> None:
    """Warn at the line outside this package that led here, every time: `warnings.warn` says a text once a line."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "sdrt":
        frame = frame.f_back
    warnings.warn_explicit(message, SdrtWarning, frame.f_code.co_filename, frame.f_lineno, registry={})
