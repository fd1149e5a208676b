"""Plain tables on stdout, for people and for pipes."""

from __future__ import annotations

from collections.abc import Sequence

from sdrt.common.visible import visible

__all__ = ["columns"]


def columns(lines: Sequence[Sequence[str]], *, figures: bool = False) -> str:
    """Format lines of cells, of which the first has the headings. Each column is as wide as its widest cell.

    With `figures`, all columns but the first are aligned to the right. Control characters of cells become visible, so
    that no cell makes a line of its own.
    """
    lines = [[visible(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(
            cell.rjust(width) if figures and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in text)
