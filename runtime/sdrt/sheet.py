"""A contact sheet: many pictures on one, each with a line or three under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont

__all__ = ["MAX_SIDE", "ContactSheet"]

MAX_SIDE = 8192
"""Pixels of the sheet's longer side: pictures are made smaller to keep to it."""

_GAP = 8
_LINE = 16
_FONT_SIZE = 12
_MOST_LINES = 3
_LEAST_CELL = 16
_PAPER, _INK = (232, 232, 232), (32, 32, 32)


@dataclass(kw_only=True)
class ContactSheet:
    """Cells of `width` by `height` pixels for `count` pictures, row by row, `columns` of them in a row.

    Pictures are copied onto it as they come, so no more than one need be kept.
    """

    count: int
    width: int
    height: int
    columns: int | None = None
    _labels: list[str] = field(default_factory=list)
    _pictures: list[Image.Image] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = self.columns or ceil(sqrt(self.count))
        rows = ceil(self.count / self.columns)
        label = _GAP + _MOST_LINES * _LINE
        shrink = min(
            1.0,
            ((MAX_SIDE - _GAP) / self.columns - _GAP) / self.width,
            ((MAX_SIDE - _GAP) / rows - label) / self.height,
        )
        self.width = max(_LEAST_CELL, int(self.width * shrink))
        self.height = max(_LEAST_CELL, int(self.height * shrink))

    def add(self, picture: Image.Image, label: str) -> None:
        """The next picture, made to fit its cell, and what stands under it."""
        cell = (self.width, self.height)
        small = picture if picture.size == cell else picture.resize(cell, Image.Resampling.LANCZOS)
        self._pictures.append(small.convert("RGB"))
        self._labels.append(label)

    def render(self) -> Image.Image:
        """The sheet with the pictures so far; labels are broken between words, and cut after three lines."""
        assert self.columns is not None
        font = ImageFont.load_default(_FONT_SIZE)
        texts = [_wrap(label, self.width, font) for label in self._labels]
        columns = min(self.columns, len(self._pictures))
        rows = ceil(len(self._pictures) / self.columns)
        step_x = self.width + _GAP
        step_y = self.height + _GAP + _LINE * max(map(len, texts))
        sheet = Image.new("RGB", (_GAP + columns * step_x, _GAP + rows * step_y), _PAPER)
        draw = ImageDraw.Draw(sheet)
        for index, (picture, lines) in enumerate(zip(self._pictures, texts, strict=True)):
            x, y = _GAP + index % self.columns * step_x, _GAP + index // self.columns * step_y
            sheet.paste(picture, (x, y))
            for number, line in enumerate(lines):
                draw.text((x, y + self.height + 2 + number * _LINE), line, fill=_INK, font=font)
        return sheet


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrap(text: str, width: int, font: Font) -> list[str]:
    """`text` in lines of at most `width` pixels; what does not fit on the last ends in an ellipsis."""
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
    kept: Sequence[str] = line.removesuffix("…").rstrip()
    while kept and font.getlength(f"{kept}…") > width:
        kept = kept[:-1]
    return f"{kept}…"
