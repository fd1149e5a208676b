"""The table of `sdrt benchmark --profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdrt.cli.benchmark.labels import label, ms, short
from sdrt.cli.tables import columns

__all__ = ["profile_text"]

_MOST_OPERATORS = 12
_TIMES, _RATES = ("operator", "on", "share", "ms/step", "calls"), ("GFLOP/s", "GB/s", "of roof")
_SUMMED = ("calls", "seconds", "bytes", "flops", "least")

Row = Mapping[str, Any]


def profile_text(record: Mapping[str, Any]) -> str:
    """A table for each profiled configuration: where the time of its steps went."""
    every = [one["settings"] for one in record["measurements"]]
    texts = [
        _profile(label(one["settings"], every), one["profile"], one["statistics"]["step"]["p50"])
        for one in record["measurements"]
        if one.get("profile")
    ]
    return "\n\n".join(texts)


def _profile(name: str, profile: Mapping[str, Any], median: float) -> str:
    """`median` is the median step without profiling, in seconds."""
    steps, unet = profile["steps"], profile["components"]["unet"]
    step = profile["step_seconds"] / steps
    rows = _by_kind(unet["operators"])
    rated = profile["rates"] == "operators"
    lines: list[Sequence[str]] = [(*_TIMES, *(_RATES if rated else ()))]
    for row in [*rows[:_MOST_OPERATORS], *_others(rows[_MOST_OPERATORS:])]:
        times = (*_time(row["seconds"] / steps, step), f"{row['calls'] / steps:.0f}")
        lines.append(
            (row["operator"], short(row["provider"]), *times, *(_rates(row, row["seconds"]) if rated else ()))
        )
    operators, inside = sum(row["seconds"] for row in rows) / steps, unet["seconds"] / steps
    blank = ("",) * (4 if rated else 1)
    lines.append(("outside operators", "", *_time(inside - operators, step), *blank))
    lines.append(("outside the U-Net", "", *_time(step - inside, step), *blank))
    lines.append(("step", "", *_time(step, step), *blank))
    text = f"profile of {name}\n{columns(lines, figures=True)}"
    if profile["rates"] == "step":
        text += "\nthe times of operators are the times to launch them, not to run them"
    return text if profile["rates"] is None else f"{text}\n{_roof(rows, profile, median)}"


def _roof(rows: Sequence[Row], profile: Mapping[str, Any], median: float) -> str:
    """The roof that the last column refers to, and the share of it that a step without profiling reaches."""
    ceiling = profile["ceiling"]
    gflops, _, share = _rates(_total(rows), median * profile["steps"])
    return (
        f"roof: {ceiling['flops_per_second'] / 1e9:.1f} GFLOP/s in products of {ceiling['side']}x{ceiling['side']} "
        f"matrices ({ceiling['dtype']}),\n"
        f"      {ceiling['bytes_per_second'] / 1e9:.1f} GB/s in sums of large tensors\n"
        f"a step of {ms(median)} ms, without profiling: {gflops} GFLOP/s, {share} of roof"
    )


def _by_kind(rows: Sequence[Row]) -> list[Row]:
    """The rows with all blocks of an operator added up, the slowest operator first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["operator"], row["provider"]), []).append(row)
    kinds = [{"operator": key[0], "provider": key[1], **_total(same)} for key, same in found.items()]
    return sorted(kinds, key=lambda row: -row["seconds"])


def _others(rows: Sequence[Row]) -> list[Row]:
    """One row for all operators that have no row of their own."""
    return [{"operator": f"{len(rows)} others", "provider": "", **_total(rows)}] if rows else []


def _total(rows: Sequence[Row]) -> dict[str, Any]:
    """The sum of each column, None where no row has a value."""
    total = {}
    for key in _SUMMED:
        values = [row[key] for row in rows if row[key] is not None]
        total[key] = sum(values) if values else None
    return total


def _time(seconds: float, step: float) -> tuple[str, str]:
    return f"{seconds / step:.1%}", ms(seconds)


def _rates(row: Row, seconds: float) -> tuple[str, str, str]:
    """GFLOP/s, GB/s and the share of the roof."""
    flops, moved, least = row["flops"], row["bytes"], row["least"]
    return (
        f"{flops / seconds / 1e9:.1f}" if flops and seconds else "",
        f"{moved / seconds / 1e9:.1f}" if moved and seconds else "",
        f"{least / seconds:.0%}" if least and seconds else "",
    )
