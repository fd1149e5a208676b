"""Draw an image above the progress bar. Each character shows two pixels, one above the other."""

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

__all__ = ["ImageProgress", "draw"]

_MAX_COLUMNS, _MAX_ROWS = 64, 24


class ImageProgress(Progress):
    """rich's progress display, with the latest image above the bars."""

    _image: RenderableType | None = None

    @property
    def draws(self) -> bool:
        """Whether the terminal has colours. Without colours, an image would be a field of equal blocks."""
        return self.console.color_system is not None and not self.console.no_color

    def show(self, image: Image.Image) -> None:
        """Draw `image` in place of the previous one, as large as the terminal allows."""
        if not self.draws:
            return
        columns = min(_MAX_COLUMNS, self.console.width)
        rows = min(_MAX_ROWS, max(1, self.console.height - 4))
        self._image = draw(image, columns, rows)
        self.refresh()

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the image, then the bars."""
        if self._image is not None:
            yield self._image
        yield from super().get_renderables()


def draw(image: Image.Image, columns: int, rows: int) -> Segments:
    """Draw an image in at most `columns` by `rows` characters.

    Each character is an upper half block: its colour is the upper pixel, its background the lower one.
    """
    shrink = min(columns / image.width, 2 * rows / image.height)
    width, lines = max(1, round(image.width * shrink)), max(1, round(image.height * shrink / 2))
    small = image.convert("RGB").resize((width, 2 * lines)).tobytes()
    segments = []
    for line in range(lines):
        upper, lower = (small[(2 * line + half) * width * 3 :][: width * 3] for half in (0, 1))
        for start in range(0, width * 3, 3):
            colour, background = (Color.from_rgb(*half[start : start + 3]) for half in (upper, lower))
            segments.append(Segment("▀", Style(color=colour, bgcolor=background)))
        segments.append(Segment.line())
    return Segments(segments)
