"""What commands that run systems in turn share: spreads over the rounds, and the cells of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import tables
from benchmarks.measure import markdown, spread

__all__ = ["ratios", "spreads", "table"]

Turns = Sequence[Mapping[str, Mapping[str, float]]]
Spreads = dict[str, dict[str, dict[str, float]]]


def spreads(turns: Turns, keys: Sequence[str]) -> Spreads:
    """System → figure → minimum, median and maximum over the rounds."""
    return {name: {key: spread([turn[name][key] for turn in turns]) for key in keys} for name in turns[0]}


def ratios(turns: Turns, keys: Sequence[str], base: str) -> Spreads:
    """The same of the ratios to the system `base` within each round."""
    relative = [
        {name: {key: row[key] / turn[base][key] for key in keys} for name, row in turn.items()}
        for turn in turns
    ]
    return spreads(relative, keys)


def table(
    figures: Mapping[str, Any], title: str, columns: Mapping[str, str], base: str, *, of: str, digits: int = 1
) -> str:
    """Medians, in brackets the ratio to `base` with its spread; then the goals.

    `columns` are the titles of the figures, and `of` is the key of the ratios in `figures`, which may be missing.
    """
    relative = figures.get(of, {})
    rows = [
        [f"`{name}`", *(_cell(row, relative.get(name), key, name == base, digits) for key in columns)]
        for name, row in figures["systems"].items()
    ]
    return "\n".join([markdown([title, *columns.values()], rows), tables.bars(figures)])


def _cell(
    row: Mapping[str, Any], relative: Mapping[str, Any] | None, key: str, is_base: bool, digits: int
) -> str:
    """A median, with its ratio unless the system is the one that others are compared with."""
    value = row[key]["median"]
    shown = f"{value / 1e9:.2f} GB" if key.endswith("bytes") else f"{value:.{digits}f} s"
    if is_base or relative is None:
        return shown
    ratio = relative[key]
    return f"{shown} ({ratio['median']:.2f}×, {ratio['min']:.2f}–{ratio['max']:.2f})"
