"""What `sdrt batch` shows while it works: rows on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdrt.common.progress import Display

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Rows"]

_INTERVAL = 1.0
"""Seconds between two plain lines."""


class Rows(Display):
    """A `Display` of rows. See `sdrt.batch.run.Report`."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._total = self._there = self._made = self._failed = 0
        self._began, self._last = time.monotonic(), -_INTERVAL
        self._said: set[str] = set()
        self._task: TaskID | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within this block, a terminal has a bar."""
        if not self.live:
            yield
            return
        with self._drawing(_bar()):
            yield

    def notice(self, text: str) -> None:
        """Print one line, once: every row may say the same."""
        if text not in self._said:
            self._said.add(text)
            super().notice(text)

    def begin(self, rows: int, there: int) -> None:
        """Begin with `rows` rows, `there` of which are made already."""
        self._total, self._there, self._began = rows, there, time.monotonic()
        if there:
            super().notice(f"{there} of {rows} images are there already")
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task("rows", total=rows, completed=there, pace="")

    def done(self, *, made: bool) -> None:
        """Count a row that is made, or has failed."""
        self._made += made
        self._failed += not made
        finished = self._there + self._made + self._failed
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=finished, pace=self._pace(finished), refresh=True)
        elif time.monotonic() - self._last >= _INTERVAL or finished == self._total:
            self._last = time.monotonic()
            super().notice(f"row {finished} of {self._total}: {self._pace(finished)}")

    def _pace(self, finished: int) -> str:
        seconds = (time.monotonic() - self._began) / max(self._made + self._failed, 1)
        left = round((self._total - finished) * seconds)
        clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return f"{seconds:.2f} s/row, {clock} left" + (f", {self._failed} failed" if self._failed else "")


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,
    )
