"""The table of `sdrt benchmark --profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .benchmark_words import label, ms, short
from .columns import columns

__all__ = ["profile_text"]

_MOST_OPERATORS = 12
_HEADINGS = ("operator", "on", "share", "ms/step", "calls", "GFLOP/s", "GB/s", "of roof")
_SUMMED = ("calls", "seconds", "bytes", "least")

Row = Mapping[str, Any]


def profile_text(record: Mapping[str, Any]) -> str:
    """Of each configuration that was profiled, where its steps' time went."""
    every = [one["settings"] for one in record["measurements"]]
    texts = [
        _profile(label(one["settings"], every), one["profile"])
        for one in record["measurements"]
        if one.get("profile")
    ]
    return "\n\n".join(texts)


def _profile(name: str, profile: Mapping[str, Any]) -> str:
    steps, unet, ceiling = profile["steps"], profile["components"]["unet"], profile["ceiling"]
    step = profile["step_seconds"] / steps
    rows = _by_kind([{**row, "least": _least(row, ceiling)} for row in unet["operators"]])
    lines: list[Sequence[str]] = [_HEADINGS]
    for row in [*rows[:_MOST_OPERATORS], *_others(rows[_MOST_OPERATORS:])]:
        calls = f"{row['calls'] / steps:.0f}"
        # Operators that were only started have no rate.
        rates = _rates(row) if profile["timed"] else ("", "", "")
        lines.append(
            (row["operator"], short(row["provider"]), *_time(row["seconds"] / steps, step), calls, *rates)
        )
    operators, inside = sum(row["seconds"] for row in rows) / steps, unet["seconds"] / steps
    lines.append(("outside operators", "", *_time(inside - operators, step), "", "", "", ""))
    lines.append(("outside the U-Net", "", *_time(step - inside, step), "", "", "", ""))
    whole = {key: sum(row[key] or 0 for row in rows) for key in ("flops", "bytes", "least")}
    rates = _rates({**whole, "seconds": profile["step_seconds"]})
    lines.append(("step", "", *_time(step, step), "", *rates))
    return f"profile of {name}\n{columns(lines, figures=True)}\n{_roof(ceiling)}"


def _least(row: Row, ceiling: Mapping[str, Any]) -> float:
    """Seconds below which the roof does not let an operator go."""
    arithmetic = (row["flops"] or 0) / ceiling["flops_per_second"]
    return float(max(arithmetic, row["bytes"] / ceiling["bytes_per_second"]))


def _by_kind(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of all blocks together, the operator that took longest first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["operator"], row["provider"]
        empty = {"operator": key[0], "provider": key[1], "flops": None, **dict.fromkeys(_SUMMED, 0)}
        own = found.setdefault(key, empty)
        for summed in _SUMMED:
            own[summed] += row[summed]
        if row["flops"] is not None:
            own["flops"] = (own["flops"] or 0) + row["flops"]
    return sorted(found.values(), key=lambda row: -row["seconds"])


def _others(rows: Sequence[Row]) -> list[Row]:
    """One row of all that have none of their own."""
    if not rows:
        return []
    total = {key: sum(row[key] for row in rows) for key in _SUMMED}
    return [{"operator": f"{len(rows)} others", "provider": "", "flops": None, **total}]


def _time(seconds: float, step: float) -> tuple[str, str]:
    return f"{seconds / step:.1%}", ms(seconds)


def _rates(row: Row) -> tuple[str, str, str]:
    """GFLOP/s, GB/s, and the share of what the roof allows."""
    seconds, flops = row["seconds"], row["flops"]
    if not seconds:
        return "", "", ""
    return (
        f"{flops / seconds / 1e9:.1f}" if flops else "",
        f"{row['bytes'] / seconds / 1e9:.1f}",
        f"{row['least'] / seconds:.0%}",
    )


def _roof(ceiling: Mapping[str, Any]) -> str:
    """What the last column is a share of."""
    side, dtype = ceiling["side"], ceiling["dtype"]
    return (
        f"roof: {ceiling['flops_per_second'] / 1e9:.1f} GFLOP/s in products of {side}x{side} matrices ({dtype}),\n"
        f"      {ceiling['bytes_per_second'] / 1e9:.1f} GB/s in sums of large tensors, measured here"
    )
