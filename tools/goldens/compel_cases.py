"""Prompts in Compel's syntax that are recorded, and how many layers of the text encoder to skip."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CASES"]

CASES: Mapping[str, tuple[str, int | None]] = {
    "no weights": ("a red circle", None),
    "up": ("a red++ (circle and ring)1.4", None),
    "down": ("a red- circle", None),
    "down twice": ("a (red)0.3 circle (on blue)0.75", None),
    "nothing left": ("(a red circle)0", None),
    "nested": ("a (red (circle)1.3 ring-)0.9, (a \\(star\\))1.2", None),
    "clip skip": ("a red+ circle--", 1),
    "blend": ('("a red circle", "a blue+ ring").blend(0.6, 0.4)', None),
    "blend as it is": ('("a red circle", "a ring", "").blend(1, -0.5, 0.2, no_normalize)', None),
    "and": ('("a red+ circle", "a ring (of blue)0.5").and(1, 0.5)', None),
    "sentences": ("A red circle. " * 6 + "A blue++ ring and " + "some words " * 7 + "(no end)1.1", None),
    "phrases": ("a circle, a ring: " * 5 + "word " * 16 + "long" * 20, None),
}
