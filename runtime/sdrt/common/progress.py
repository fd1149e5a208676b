"""Progress of long work, on stderr.

A terminal gets a live display drawn by rich, a pipe or a log gets plain lines, and `quiet` gets nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from sdrt.common.interrupt import stop_if_asked
from sdrt.common.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Board", "Display", "PlainBoard", "export_reporter"]

STAGES = {
    "load": "loading",
    "export": "exporting",
    "write": "writing",
    "check": "comparing with torch",
    "compare": "comparing with float32",
    "calibrate": "making images to calibrate with",
    "done": "done",
}
"""The exporter's stages, as users read them."""


class Board(Protocol):
    """Shows the progress of named parts of unknown duration."""

    def show(self, part: str, stage: str, detail: str = "", *, done: bool = False) -> None:
        """Show that `part` has reached `stage`."""


def export_reporter(board: Board) -> Callable[[Any], None]:
    """A reporter for the exporter, which calls it with `ProgressEvent`s. Draws on `board`."""

    def report(event: Any) -> None:
        stop_if_asked()
        done = event.stage == "done"
        board.show(event.component or "model", STAGES[event.stage], event.detail, done=done)

    return report


class Display:
    """stderr, as a terminal or as a stream of lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        stream = _stderr()
        self.quiet = quiet or stream is None
        self.live = (
            not self.quiet and stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        )
        self._progress: Progress | None = None

    def notice(self, text: str) -> None:
        """Print one line, above the display if there is one. Control characters become visible."""
        if self.quiet:
            return
        text = visible(text)
        if self._progress is None:
            # A stderr that cannot be written to must not stop the work.
            with suppress(OSError):
                # A single write, because the exporter reports from several threads.
                print(f"{text}\n", end="", file=sys.stderr, flush=True)
        else:
            self._progress.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextmanager
    def board(self) -> Iterator[Board]:
        """Show a line for each part, with its stage and duration."""
        if not self.live:
            yield PlainBoard(self.notice)
            return
        with self._drawing(_board()) as progress:
            yield _LiveBoard(progress)

    @contextmanager
    def _drawing(self, progress: Progress) -> Iterator[Progress]:
        self._progress = progress
        try:
            yield progress
        finally:
            progress.stop()
            self._progress = None


class PlainBoard:
    """A board that prints a line for each stage."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def show(self, part: str, stage: str, detail: str = "", *, done: bool = False) -> None:
        """See `Board`."""
        self._say(f"{part}: {stage}{f', {detail}' if detail else ''}")


class _LiveBoard:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, part: str, stage: str, detail: str = "", *, done: bool = False) -> None:
        # Not earlier: an empty board would get in the way of a download's progress bars.
        self._progress.start()
        if part not in self._tasks:
            self._tasks[part] = self._progress.add_task(visible(part), total=1, stage="")
        text = visible(f"{stage}  {detail}".rstrip())
        self._progress.update(self._tasks[part], stage=text, completed=int(done))


def _stderr() -> TextIO | None:
    # None in a program without a console, such as pythonw.
    return sys.stderr


def _board() -> Progress:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[stage]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,
    )
