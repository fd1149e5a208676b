"""The table of `sdrt benchmark --profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .benchmark_words import label, ms, short
from .columns import columns

__all__ = ["profile_text"]

_MOST_OPERATORS = 12


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
    steps, unet = profile["steps"], profile["components"]["unet"]
    step = profile["step_seconds"] / steps
    rows = _by_kind(unet["operators"])
    lines: list[Sequence[str]] = [("operator", "provider", "share", "ms/step", "calls", "ms/call", "GFLOP/s")]
    lines += [_operator(row, steps, step) for row in rows[:_MOST_OPERATORS]]
    if rest := rows[_MOST_OPERATORS:]:
        calls, seconds = (sum(row[key] for row in rest) for key in ("calls", "seconds"))
        lines.append(
            _operator(
                {
                    "operator": f"{len(rest)} others",
                    "provider": "",
                    "calls": calls,
                    "seconds": seconds,
                    "flops": None,
                },
                steps,
                step,
            )
        )
    operators = sum(row["seconds"] for row in rows) / steps
    inside = unet["seconds"] / steps
    for text, seconds in (
        ("U-Net, outside operators", inside - operators),
        ("step, outside the U-Net", step - inside),
        ("step", step),
    ):
        lines.append((text, "", f"{seconds / step:.1%}", ms(seconds), "", "", ""))
    return f"profile of {name}\n{columns(lines, figures=True)}"


def _by_kind(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of all blocks together, the operator that took longest first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["operator"], row["provider"]
        own = found.setdefault(
            key, {"operator": key[0], "provider": key[1], "calls": 0, "seconds": 0.0, "flops": None}
        )
        own["calls"] += row["calls"]
        own["seconds"] += row["seconds"]
        if row["flops"] is not None:
            own["flops"] = (own["flops"] or 0) + row["flops"]
    return sorted(found.values(), key=lambda row: -row["seconds"])


def _operator(row: Mapping[str, Any], steps: int, step: float) -> tuple[str, ...]:
    seconds, flops = row["seconds"], row["flops"]
    return (
        row["operator"],
        short(row["provider"]),
        f"{seconds / steps / step:.1%}",
        ms(seconds / steps),
        f"{row['calls'] / steps:.0f}",
        ms(seconds / row["calls"]),
        f"{flops / seconds / 1e9:.1f}" if flops and seconds else "",
    )
