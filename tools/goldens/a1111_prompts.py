"""Prompts for `record_a1111`, made by chance: well-formed ones, and texts with marks that close nothing."""

from __future__ import annotations

import random

__all__ = ["WRITTEN", "prompts"]

WRITTEN = (
    "a red circle",
    "[a red circle:a blue square:1.0]",
    "[a red circle:a blue square:1.5]",
    "[a:b:0.25] and [c:3]",
    "photo: a [cat:dog:0.5], 16:9",
    r"C:\dir [a:b:2]",
    r"[a\:b:c\|d:2]",
    "[a:b:2] \\",
    "a | b [c:d:2]",
    "[fe|||]male",
    "[a:b:1e0] [c:d:5e-1] [e:f:.5]",
    "[a:b:-1] [c:d:+2] [e:f: 3. ]",
    "(a cat:1.2), [(dog:1.1):[fish|bird]:0.5]",
    "[[a:b:2]:c:3]",
    "[a\n:b:2]",
)
"""Prompts that people write."""
_WORDS = ("a", "b c", " d ", "", "é", r"\(e\)", r"\:")
_WHEN = ("2", "0.5", "1.0", "1.5", " 3 ", "7", ".25", "9", "1.75")
_MARKS = (*"[]():| \\", "a", "2", ":2]", "0.5", "[a:b:2]", r"\:", r"\|", "[a|b]", "(c:1.2)")


def prompts(count: int, seed: int) -> list[str]:
    """Return `count` different prompts."""
    chance = random.Random(seed)
    found = dict.fromkeys(WRITTEN)
    while len(found) < count:
        kind = chance.random()
        text = _well_formed(chance, 3) if kind < 0.8 else _marks(chance)
        if 0.6 < kind < 0.8:
            place = chance.randrange(len(text) + 1)
            text = text[:place] + chance.choice(_MARKS) + text[place:]
        if len(text) < 60:
            found[text] = None
    return list(found)


def _marks(chance: random.Random) -> str:
    return "".join(chance.choice(_MARKS) for _ in range(chance.randint(1, 10)))


def _well_formed(chance: random.Random, depth: int) -> str:
    if depth == 0:
        return chance.choice(_WORDS)

    def inner() -> str:
        return _well_formed(chance, depth - 1)

    kind = chance.randrange(8)
    if kind < 2:
        return f"[{inner()}:{inner()}:{chance.choice(_WHEN)}]"
    if kind == 2:
        return f"[{inner()}:{chance.choice(_WHEN)}]"
    if kind == 3:
        return f"[{'|'.join(inner() for _ in range(chance.randint(2, 3)))}]"
    if kind == 4:
        return f"({inner()}:1.2)"
    if kind == 5:
        return f"({inner()})"
    return inner() + inner()
