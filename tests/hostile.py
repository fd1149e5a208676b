"""A text as a stranger's file may hold it, and the check that a terminal would be safe from it."""

from __future__ import annotations

import unicodedata

__all__ = ["HOSTILE", "assert_safe"]

HOSTILE = "\x1b]0;title\x07\x1b[31m[red]:cat:\x9b2J\x7f\u202e\u2066\u200b\u2028\rx"
"""Sets the title, colours, clears, overwrites the line and reverses it. `[red]` is rich's markup, `:cat:` an emoji."""


def assert_safe(output: str, *, shows: str = "[red]:cat:") -> None:
    """`output` holds no character that a terminal obeys, except for newlines and tabs, and it does hold `shows`."""
    obeyed = {letter for letter in output if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert obeyed <= {"\n", "\t"}, output
    assert shows in output, output
