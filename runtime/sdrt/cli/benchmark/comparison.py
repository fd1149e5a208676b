"""The tables of `sdrt benchmark --compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sdrt.cli.benchmark.labels import VARYING, label, ms, word
from sdrt.cli.tables import columns
from sdrt.common.visible import visible

if TYPE_CHECKING:
    from sdrt.benchmark.compare import Comparison, Ratio

__all__ = ["comparison_text"]


def comparison_text(names: Sequence[str], comparison: Comparison, confidence: float) -> str:
    """The ratios of the second record to the first, then differences and configurations without a match."""
    parts = [f"{names[1]} over {names[0]}: below 1 is faster"]
    all_settings = [pair.settings for pair in comparison.pairs]
    for pair in comparison.pairs:
        head = ("time", "ratio", f"{confidence:.0%} interval", "ms", "was")
        table: list[Sequence[str]] = [head, *(_ratio(name, ratio) for name, ratio in pair.ratios.items())]
        parts.append(f"{label(pair.settings, all_settings)}\n{columns(table, figures=True)}")
    if not comparison.pairs:
        parts.append("no configuration is in both records")
    if comparison.differences:
        lines = [
            f"  {visible(name)}: {_shown(was)} -> {_shown(now)}" for name, was, now in comparison.differences
        ]
        parts.append("\n".join(["different:", *lines]))
    for name, alone in zip(names, comparison.without_partner, strict=True):
        if alone:
            parts.append("\n".join([f"only in {name}:", *(f"  {_in_full(settings)}" for settings in alone)]))
    return "\n\n".join(parts)


def _ratio(name: str, ratio: Ratio) -> tuple[str, ...]:
    interval = ratio.interval
    ends = "n < 7" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
    return (name, f"{ratio.value:.3f}", ends, ms(ratio.after), ms(ratio.before))


def _in_full(settings: Mapping[str, Any]) -> str:
    words = [word(name, settings.get(name)) for name in VARYING]
    return f"{settings['width']}x{settings['height']} b{settings['batch']} {' '.join(words)}"


def _shown(value: Any) -> str:
    """`value` on one line. The file may be from another program and contain anything."""
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return visible(text)
