"""Names and numbers in the tables of `sdrt benchmark`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdrt.common.visible import visible

__all__ = ["UNKNOWN", "VARYING", "figure", "label", "ms", "short", "word"]

UNKNOWN = "-"
VARYING = ("scheduler", "spacing", "provider", "threads", "steps")
"""Settings that distinguish configurations of the same size and batch."""


def label(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Size, batch, and the other settings that vary between the configurations."""
    words = [f"{settings['width']}x{settings['height']}", f"b{settings['batch']}"]
    for name in VARYING:
        if len({str(other.get(name)) for other in others}) > 1:
            words.append(word(name, settings.get(name)))
    return " ".join(words)


def word(name: str, value: Any) -> str:
    """One setting as a word of a label."""
    if name == "threads":
        return f"threads {value or 'all'}"
    return visible(f"{value} steps" if name == "steps" else str(value))


def short(provider: str) -> str:
    """ONNX Runtime's name of a provider, without "ExecutionProvider"."""
    return provider.removesuffix("ExecutionProvider")


def ms(seconds: float) -> str:
    """`seconds` in milliseconds, as `figure` formats them."""
    return figure(seconds * 1e3)


def figure(value: float | None) -> str:
    """`value` with up to four digits, but never fewer than it has before the point. None gives "-"."""
    if value is None:
        return UNKNOWN
    for least, digits in ((1000, 0), (100, 1), (1, 2)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"
