"""What a person sees while `sdrt generate` works, on stderr: `sdrt.common.progress` with a bar of steps."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import click

from sdrt.common.progress import Display

if TYPE_CHECKING:
    from PIL import Image
    from rich.progress import TaskID

    from sdrt.cli.generate.terminal_picture import PictureProgress

__all__ = ["Steps", "Terminal"]

LINE_INTERVAL = 1.0
"""Seconds between two plain lines of progress, so that a log of a fast model stays readable."""


class Steps(Protocol):
    """Progress of a known number of steps."""

    def begin(self, text: str, steps: int) -> None:
        """Say what the next steps belong to, and how many they are."""

    def advance(self) -> None:
        """One step is done."""

    def show(self, picture: Image.Image) -> None:
        """Draw what is being made, where there is a terminal to draw on."""


class Terminal(Display):
    """A display that also knows stdout, for the names of what was made, and steps."""

    def result(self, path: Path) -> None:
        """One path on stdout; when a bar is drawn on the same terminal, above it."""
        stdout = self._stdout()
        if self._progress is not None and stdout is not None and stdout.isatty():
            self.notice(click.format_filename(path))
        else:
            # A name may hold bytes that are no text; Windows has no such names, and consoles that take no bytes.
            click.echo(os.fsencode(path) if os.name == "posix" else str(path))

    @staticmethod
    def _stdout() -> TextIO | None:
        # None when it was closed.
        return sys.stdout

    @property
    def draws_pictures(self) -> bool:
        """Whether `Steps.show` has where to draw: a terminal, and one with colours."""
        return self.live and _step_bar().draws

    @contextmanager
    def steps(self, total: int) -> Iterator[Steps]:
        """A bar over so many steps of all batches, with the batch's step, seconds per step and time left."""
        pace = Pace(total)
        if not self.live:
            yield _PlainSteps(self, pace)
            return
        progress = _step_bar()
        with self._drawing(progress):
            progress.start()
            yield _LiveSteps(progress, pace)


class Pace:
    """Seconds per step over all batches; the first pays for warming up, and counts only while it is alone."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._steps = self._before = 0
        self._started = self._first = time.perf_counter()

    def begin(self, steps: int) -> None:
        """A batch of so many steps begins."""
        self._steps, self._before = steps, self.done

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
        digits = 2 if self.seconds_per_step >= 0.1 else 4
        step = f"step {self.done - self._before}/{self._steps}"
        return f"{step}, {self.seconds_per_step:.{digits}f} s/step, {_clock(left)} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _PlainSteps:
    def __init__(self, terminal: Terminal, pace: Pace) -> None:
        self._terminal, self._pace = terminal, pace
        self._text, self._last_line = "", -LINE_INTERVAL

    def begin(self, text: str, steps: int) -> None:
        self._text = text
        self._pace.begin(steps)

    def show(self, picture: Image.Image) -> None:
        """A log is no place for pictures."""

    def advance(self) -> None:
        self._pace.advance()
        now = time.monotonic()
        if now - self._last_line >= LINE_INTERVAL or self._pace.done in (1, self._pace.total):
            self._last_line = now
            self._terminal.notice(f"{self._text}: {self._pace}")


class _LiveSteps:
    def __init__(self, progress: PictureProgress, pace: Pace) -> None:
        self._progress, self._pace = progress, pace
        self._task: TaskID = progress.add_task("", total=pace.total, pace=str(pace))

    def begin(self, text: str, steps: int) -> None:
        self._pace.begin(steps)
        self._progress.update(self._task, description=text)

    def show(self, picture: Image.Image) -> None:
        self._progress.show(picture)

    def advance(self) -> None:
        self._pace.advance()
        self._progress.update(self._task, completed=self._pace.done, pace=str(self._pace), refresh=True)


def _step_bar() -> PictureProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn

    from sdrt.cli.generate.terminal_picture import PictureProgress

    return PictureProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,
    )
