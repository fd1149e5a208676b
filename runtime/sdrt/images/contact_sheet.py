"""Contact sheets: many images on one, each with up to three lines of text under it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont, ImageOps

from sdrt.errors import RequestError

__all__ = ["MAX_IMAGES", "MAX_SIDE", "ContactSheet"]

MAX_SIDE = 8192
"""The most pixels of the sheet's longer side. Images are scaled down to fit."""
MAX_IMAGES = 10_000
"""The most images on a sheet."""

_GAP = 8
_LINE = 16
_FONT_SIZE = 12
_MOST_LINES = 3
_LABEL = _GAP + _MOST_LINES * _LINE
_LEAST_CELL = 16
_PAPER, _INK = (232, 232, 232), (32, 32, 32)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The number of images in a row, and the size of each in pixels."""

    columns: int
    width: int
    height: int

    @classmethod
    def of(cls, count: int, columns: int, width: int, height: int) -> _Layout:
        """The largest cells, at most `width` by `height`, with which the sheet is within `MAX_SIDE`."""
        across = ((MAX_SIDE - _GAP) / columns - _GAP) / width
        down = ((MAX_SIDE - _GAP) / ceil(count / columns) - _LABEL) / height
        shrink = min(1.0, across, down)
        return cls(columns=columns, width=int(width * shrink), height=int(height * shrink))

    @property
    def is_legible(self) -> bool:
        return max(self.width, self.height) >= _LEAST_CELL and min(self.width, self.height) >= 1


class ContactSheet:
    """`count` images, row by row, each with its label, in cells of at most `width` by `height` pixels.

    `columns` is the number of images in a row. By default, and if they would be too small, there are about as many rows
    as columns. Only the scaled images are kept in memory.

    Raises:
        RequestError: there are more than `MAX_IMAGES`, or none, or a size is below 1.
    """

    def __init__(self, *, count: int, width: int, height: int, columns: int | None = None) -> None:
        if not 1 <= count <= MAX_IMAGES:
            raise RequestError.expected(
                f"a contact sheet of {count} images",
                f"1 to {MAX_IMAGES}; make several sheets",
                argument="count",
            )
        if min(width, height) < 1:
            raise RequestError.expected(
                f"a contact sheet of images of {width}x{height} pixels",
                "1x1 or more",
                argument="width" if width < 1 else "height",
            )
        if columns is not None and columns < 1:
            raise RequestError.expected(
                f"a contact sheet of {columns} columns", "1 or more", argument="columns"
            )
        self._count = count
        square = ceil(sqrt(count))
        layouts = (_Layout.of(count, row, width, height) for row in (columns or square, square))
        self._size = (width, height)
        self._layout = next((layout for layout in layouts if layout.is_legible), _least(count))
        self._cells: list[tuple[Image.Image, str]] = []

    def add(self, image: Image.Image, label: str) -> None:
        """Add the next image, scaled to its cell, with `label` under it. Images of other sizes keep their proportions.

        Raises `RequestError` if the sheet is full.
        """
        if len(self._cells) >= self._count:
            raise RequestError.advised(
                f"the contact sheet is full ({self._count} images)",
                "make it for more images",
                argument="count",
            )
        cell = (self._layout.width, self._layout.height)
        if image.size == self._size:
            small = image if image.size == cell else image.resize(cell, Image.Resampling.LANCZOS)
        else:
            small = ImageOps.pad(image.convert("RGB"), cell, Image.Resampling.LANCZOS, color=_PAPER)
        self._cells.append((small.convert("RGB"), label))

    def render(self) -> Image.Image:
        """The sheet with the images so far. Labels wrap between words, and are cut after three lines."""
        font = ImageFont.load_default(_FONT_SIZE)
        texts = [_wrap(label, self._layout.width, font) for _, label in self._cells]
        columns = min(self._layout.columns, max(1, len(self._cells)))
        rows = ceil(len(self._cells) / columns)
        step_x = self._layout.width + _GAP
        step_y = self._layout.height + _GAP + _LINE * max(map(len, texts), default=0)
        sheet = Image.new("RGB", (_GAP + columns * step_x, _GAP + rows * step_y), _PAPER)
        draw = ImageDraw.Draw(sheet)
        for index, ((image, _), lines) in enumerate(zip(self._cells, texts, strict=True)):
            x, y = _GAP + index % columns * step_x, _GAP + index // columns * step_y
            sheet.paste(image, (x, y))
            for number, line in enumerate(lines):
                draw.text((x, y + image.height + 2 + number * _LINE), line, fill=_INK, font=font)
        return sheet


def _least(count: int) -> _Layout:
    """The layout for extreme proportions, where legible images would exceed the sheet. It distorts them."""
    return _Layout(columns=ceil(sqrt(count)), width=_LEAST_CELL, height=_LEAST_CELL)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrap(text: str, width: int, font: Font) -> list[str]:
    """`text` in lines of at most `width` pixels. An ellipsis replaces what does not fit."""
    lines: list[str] = []
    rest = text.split()
    while rest and len(lines) < _MOST_LINES:
        count = 1
        while count < len(rest) and font.getlength(" ".join(rest[: count + 1])) <= width:
            count += 1
        lines.append(" ".join(rest[:count]))
        rest = rest[count:]
    if rest:
        lines[-1] += " …"
    return [_cut(line, width, font) for line in lines]


def _cut(line: str, width: int, font: Font) -> str:
    if font.getlength(line) <= width:
        return line
    kept = ""
    for letter in line.removesuffix("…").rstrip():
        if font.getlength(f"{kept}{letter}…") > width:
            break
        kept += letter
    return f"{kept}…"
