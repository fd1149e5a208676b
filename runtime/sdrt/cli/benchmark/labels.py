"""Names and numbers in the tables of `sdrt benchmark`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["UNKNOWN", "VARYING", "figure", "label", "ms", "short", "word"]

UNKNOWN = "-"
VARYING = ("scheduler", "spacing", "provider", "threads", "steps")
"""Settings that tell a configuration from others of its size and batch."""


def label(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What tells a configuration from the others: size, batch, and of the rest what varies."""
    words = [f"{settings['width']}x{settings['height']}", f"b{settings['batch']}"]
    for name in VARYING:
        if len({str(other.get(name)) for other in others}) > 1:
            words.append(word(name, settings.get(name)))
    return " ".join(words)


def word(name: str, value: Any) -> str:
    """A setting, in a label."""
    if name == "threads":
        return f"threads {value or 'all'}"
    return f"{value} steps" if name == "steps" else str(value)


def short(provider: str) -> str:
    """ONNX Runtime's name of a provider, without what all of them end in."""
    return provider.removesuffix("ExecutionProvider")


def ms(seconds: float) -> str:
    """Milliseconds, as `figure` writes them."""
    return figure(seconds * 1e3)


def figure(value: float | None) -> str:
    """Four digits at most, but those before the point."""
    if value is None:
        return UNKNOWN
    for least, digits in ((1000, 0), (100, 1), (1, 2)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"
