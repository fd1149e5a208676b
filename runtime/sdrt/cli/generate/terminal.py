"""What `sdrt generate` shows while it works: a progress bar of steps on stderr, and the names of files on stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import click

from sdrt.cli.echo import echo
from sdrt.common.progress import Display
from sdrt.common.visible import visible

if TYPE_CHECKING:
    from PIL import Image
    from rich.progress import TaskID

    from sdrt.cli.generate.terminal_image import ImageProgress

__all__ = ["Steps", "Terminal"]

LINE_INTERVAL = 1.0
"""Seconds between two plain lines of progress. A fast model would otherwise fill a log."""


class Steps(Protocol):
    """Progress of steps."""

    def begin(self, text: str, steps: int | None) -> None:
        """Begin a batch of `steps` steps, or of an unknown number. `text` names the batch."""

    def advance(self) -> None:
        """Count a finished step."""

    def show(self, image: Image.Image) -> None:
        """Draw the unfinished image, if stderr is a terminal."""


class Terminal(Display):
    """A `Display` that also shows steps, and prints the names of finished files on stdout."""

    def result(self, path: Path) -> None:
        """Print a path on stdout, or above the progress bar if both are on the same terminal.

        On a terminal, control characters become visible. A pipe gets the name as it is, because it is data.
        """
        stdout = self._stdout()
        on_terminal = stdout is not None and stdout.isatty()
        if on_terminal and self._progress is not None:
            self.notice(click.format_filename(path))
        elif on_terminal:
            echo(visible(str(path)))
        else:
            # On POSIX a file name may contain bytes that are not valid text. On Windows it cannot, and consoles
            # do not accept bytes.
            click.echo(os.fsencode(path) if os.name == "posix" else str(path))

    @staticmethod
    def _stdout() -> TextIO | None:
        # None if it was closed.
        return sys.stdout

    @property
    def draws_images(self) -> bool:
        """Whether `Steps.show` can draw: stderr must be a terminal with colours."""
        return self.live and _step_bar().draws

    @contextmanager
    def steps(self, total: int | None) -> Iterator[Steps]:
        """Show the progress of all batches, `total` steps together, or an unknown number.

        The bar shows the step within the batch, the seconds per step and the time left.
        """
        pace = Pace(total)
        if not self.live:
            yield _PlainSteps(self, pace)
            return
        progress = _step_bar()
        with self._drawing(progress):
            progress.start()
            yield _LiveSteps(progress, pace)


class Pace:
    """Measures seconds per step over all batches.

    The first step includes warming up, so it is left out of the mean as soon as there is a second one.
    """

    def __init__(self, total: int | None) -> None:
        self.total, self.done, self._before = total, 0, 0
        self._steps: int | None = 0
        self._started = self._first = time.perf_counter()

    def begin(self, steps: int | None) -> None:
        """Begin a batch of `steps` steps, or of an unknown number."""
        self._steps, self._before = steps, self.done

    def advance(self) -> None:
        """Count a step that has just finished."""
        self.done += 1
        if self.done == 1:
            self._first = time.perf_counter()

    @property
    def seconds_per_step(self) -> float:
        """The mean so far, or 0 before the first step."""
        if self.done < 2:
            return (self._first - self._started) * self.done
        return (time.perf_counter() - self._first) / (self.done - 1)

    def __str__(self) -> str:
        digits = 2 if self.seconds_per_step >= 0.1 else 4
        step = f"step {self.done - self._before}" + ("" if self._steps is None else f"/{self._steps}")
        pace = f"{step}, {self.seconds_per_step:.{digits}f} s/step"
        if self.total is None:
            return pace
        return f"{pace}, {_clock((self.total - self.done) * self.seconds_per_step)} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _PlainSteps:
    def __init__(self, terminal: Terminal, pace: Pace) -> None:
        self._terminal, self._pace = terminal, pace
        self._text, self._last_line = "", -LINE_INTERVAL

    def begin(self, text: str, steps: int | None) -> None:
        self._text = text
        self._pace.begin(steps)

    def show(self, image: Image.Image) -> None:
        """Draw nothing: a log cannot show images."""

    def advance(self) -> None:
        self._pace.advance()
        now = time.monotonic()
        if now - self._last_line >= LINE_INTERVAL or self._pace.done in (1, self._pace.total):
            self._last_line = now
            self._terminal.notice(f"{self._text}: {self._pace}")


class _LiveSteps:
    def __init__(self, progress: ImageProgress, pace: Pace) -> None:
        self._progress, self._pace = progress, pace
        self._task: TaskID = progress.add_task("", total=pace.total, pace=str(pace))

    def begin(self, text: str, steps: int | None) -> None:
        self._pace.begin(steps)
        self._progress.update(self._task, description=text)

    def show(self, image: Image.Image) -> None:
        self._progress.show(image)

    def advance(self) -> None:
        self._pace.advance()
        self._progress.update(self._task, completed=self._pace.done, pace=str(self._pace), refresh=True)


def _step_bar() -> ImageProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn

    from sdrt.cli.generate.terminal_image import ImageProgress

    return ImageProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,
    )
