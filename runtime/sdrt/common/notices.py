"""Messages to the user."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from sdrt.common.visible import visible

if TYPE_CHECKING:
    from sdrt.common.progress import Board

__all__ = ["Notices", "Notify", "SdrtWarning", "told_later"]

Notify = Callable[[str], None]

_OWN = frozenset({"sdrt", "contextlib"})
_later: ContextVar[list[Callable[[], None]] | None] = ContextVar("sdrt_notices", default=None)


class SdrtWarning(UserWarning):
    """Something that the user should know. The work goes on."""


class Notices:
    """Sends messages to `notify`, or to `warnings` and stderr without it."""

    def __init__(self, notify: Notify | None = None) -> None:
        self._notify = notify

    def warn(self, message: str) -> None:
        """Tell the user something that changes the result."""
        if (later := _later.get()) is not None:
            later.append(partial(self.warn, message))
        elif self._notify is None:
            _warn_caller(message)
        else:
            self._notify(message)

    def inform(self, message: str) -> None:
        """Tell the user what takes time."""
        if (later := _later.get()) is not None:
            later.append(partial(self.inform, message))
        elif self._notify is None:
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


@contextmanager
def told_later() -> Iterator[list[Callable[[], None]]]:
    """Within this block, keep the messages of this thread. Each function in the list tells one of them.

    A thread that no code of the user called has no line to warn at, and nobody to catch a warning that is an error.
    """
    messages: list[Callable[[], None]] = []
    token = _later.set(messages)
    try:
        yield messages
    finally:
        _later.reset(token)


def _warn_caller(message: str) -> None:
    """Warn at the caller's line outside this package, every time: `warnings.warn` warns once for each line."""
    frame = sys._getframe(1)
    # The standard library's frames are those of sdrt's own context managers.
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OWN:
        frame = frame.f_back
    # Python prints it as it is.
    shown = visible(message)
    warnings.warn_explicit(shown, SdrtWarning, frame.f_code.co_filename, frame.f_lineno, registry={})
