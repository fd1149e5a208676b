"""A picture above the progress bar, two pixels to a character."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.color import Color
from rich.console import RenderableType
from rich.progress import Progress
from rich.segment import Segment, Segments
from rich.style import Style

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PictureProgress", "drawn"]

_MOST_COLUMNS, _MOST_ROWS = 64, 24


class PictureProgress(Progress):
    """rich's progress with the last picture that was shown above it."""

    _picture: RenderableType | None = None

    @property
    def draws(self) -> bool:
        """Whether it has colours: without them a picture is a field of equal blocks."""
        return self.console.color_system is not None and not self.console.no_color

    def show(self, picture: Image.Image) -> None:
        """Draw it, as large as the terminal has room for, in place of the one before."""
        if not self.draws:
            return
        columns = min(_MOST_COLUMNS, self.console.width)
        rows = min(_MOST_ROWS, max(1, self.console.height - 4))
        self._picture = drawn(picture, columns, rows)
        self.refresh()

    def get_renderables(self) -> Iterator[RenderableType]:
        """The picture and the bars."""
        if self._picture is not None:
            yield self._picture
        yield from super().get_renderables()


def drawn(picture: Image.Image, columns: int, rows: int) -> Segments:
    """A picture in at most so many characters; the upper half block is one pixel, its ground the one below."""
    shrink = min(columns / picture.width, 2 * rows / picture.height)
    width, lines = max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink / 2))
    small = picture.convert("RGB").resize((width, 2 * lines)).tobytes()
    segments = []
    for line in range(lines):
        upper, lower = (small[(2 * line + half) * width * 3 :][: width * 3] for half in (0, 1))
        for start in range(0, width * 3, 3):
            ink, ground = (Color.from_rgb(*half[start : start + 3]) for half in (upper, lower))
            segments.append(Segment("▀", Style(color=ink, bgcolor=ground)))
        segments.append(Segment.line())
    return Segments(segments)
