"""Texts from files, made safe for a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["visible"]

# Control characters (with ESC and C1), formats (bidirectional overrides, zero-width characters, tags), halves of
# surrogate pairs, and separators of lines and paragraphs.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str, *, lines: bool = False) -> str:
    r"""`text` with an escape, such as `\x1b`, for every character that a terminal would obey or not show.

    Prompts, names, configs and answers of the hub come from strangers. Their control characters can move the cursor,
    set the title or the clipboard, and their format characters can show a text in another order than it is read.

    Everything that sdrt prints for people passes through here, where it is written. JSON does not need to: its own
    escapes cover these characters. With `lines`, newlines and tabs stay. Backslashes stay, so a second pass changes
    nothing.
    """
    kept = "\n\t" if lines else ""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(letter) if letter not in kept and unicodedata.category(letter) in _ESCAPED else letter
        for letter in text
    )


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
