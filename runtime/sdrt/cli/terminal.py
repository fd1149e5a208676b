"""What a person sees while a command works: notices and progress, on stderr only.

A terminal gets a live bar drawn by rich; a pipe or a log gets plain lines; `quiet` gets neither.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Board", "Steps", "Terminal"]

LINE_INTERVAL = 1.0
"""Seconds between two plain lines of progress, so that a log of a fast model stays readable."""


class Steps(Protocol):
    """Progress of a known number of steps."""

    def describe(self, text: str) -> None:
        """Say what the next steps belong to."""

    def advance(self) -> None:
        """One step is done."""


class Board(Protocol):
    """Progress of named parts whose length is unknown."""

    def show(self, part: str, stage: str, detail: str = "", *, done: bool = False) -> None:
        """`part` has reached `stage`."""


class Terminal:
    """stderr, as a terminal or as a stream of lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._progress: Progress | None = None

    def notice(self, text: str) -> None:
        """One line for the user; above the bar when one is drawn."""
        if self.quiet:
            return
        if self._progress is None:
            click.echo(text, err=True)
        else:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def result(self, path: Path) -> None:
        """One path on stdout; when a bar is drawn on the same terminal, above it."""
        if self._progress is not None and sys.stdout.isatty():
            self.notice(click.format_filename(path))
        else:
            click.echo(os.fsencode(path))

    @contextmanager
    def steps(self, batches: int, steps: int) -> Iterator[Steps]:
        """A bar over so many batches of so many steps, with the step, seconds per step and time left."""
        pace = Pace(batches, steps)
        if not self.live:
            yield _PlainSteps(self, pace)
            return
        with self._drawing(_step_bar()) as progress:
            progress.start()
            yield _LiveSteps(progress, pace)

    @contextmanager
    def board(self) -> Iterator[Board]:
        """A line per part, with what is being done to it and for how long."""
        if not self.live:
            yield _PlainBoard(self)
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


class Pace:
    """Seconds per step over all batches; the first pays for warming up, and counts only while it is alone."""

    def __init__(self, batches: int, steps: int) -> None:
        self.steps, self.total, self.done = steps, batches * steps, 0
        self._started = self._first = time.perf_counter()

    def advance(self) -> None:
        """Count a step that ends now."""
        self.done += 1
        if self.done == 1:
            self._first = time.perf_counter()

    @property
    def seconds_per_step(self) -> float:
        """Mean so far; 0 before the first step."""
        if self.done < 2:
            return (self._first - self._started) * self.done
        return (time.perf_counter() - self._first) / (self.done - 1)

    def __str__(self) -> str:
        left = (self.total - self.done) * self.seconds_per_step
        step = (self.done - 1) % self.steps + 1 if self.done else 0
        digits = 2 if self.seconds_per_step >= 0.1 else 4
        return f"step {step}/{self.steps}, {self.seconds_per_step:.{digits}f} s/step, {_clock(left)} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _PlainSteps:
    def __init__(self, terminal: Terminal, pace: Pace) -> None:
        self._terminal, self._pace = terminal, pace
        self._text, self._last_line = "", -LINE_INTERVAL

    def describe(self, text: str) -> None:
        self._text = text

    def advance(self) -> None:
        self._pace.advance()
        now = time.monotonic()
        if now - self._last_line >= LINE_INTERVAL or self._pace.done in (1, self._pace.total):
            self._last_line = now
            self._terminal.notice(f"{self._text}: {self._pace}")


class _LiveSteps:
    def __init__(self, progress: Progress, pace: Pace) -> None:
        self._progress, self._pace = progress, pace
        self._task: TaskID = progress.add_task("", total=pace.total, pace=str(pace))

    def describe(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def advance(self) -> None:
        self._pace.advance()
        self._progress.update(self._task, completed=self._pace.done, pace=str(self._pace), refresh=True)


class _PlainBoard:
    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def show(self, part: str, stage: str, detail: str = "", *, done: bool = False) -> None:
        self._terminal.notice(f"{part}: {stage}{f', {detail}' if detail else ''}")


class _LiveBoard:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, part: str, stage: str, detail: str = "", *, done: bool = False) -> None:
        # Only now: a board with nothing on it should not get in the way of a download's own bars.
        self._progress.start()
        if part not in self._tasks:
            self._tasks[part] = self._progress.add_task(part, total=1, stage="")
        text = f"{stage}  {detail}".rstrip()
        self._progress.update(self._tasks[part], stage=text, completed=int(done))


def _step_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,
    )


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
