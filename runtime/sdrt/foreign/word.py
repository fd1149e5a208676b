"""`Word`, a row of the tables of foreign words, and the errors about names that sdrt does not have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import UnknownArgumentError, UnknownAttributeError, UnknownNameError

__all__ = ["Word", "find", "no_argument", "no_attribute", "no_name", "same"]

_LONGEST = 64
"""How many characters of a name are compared with the known names."""
_LIKENESS, _NEARLY_SAME = 0.7, 0.9


@dataclass(frozen=True)
class Word:
    """A name that people know from another program.

    Attributes:
        name: the name, or a pattern such as "*Pipeline".
        what: what it is there.
        ours: what to write for sdrt, as an instruction.
        harmless: values of an argument that ask for what sdrt does anyway, so that sdrt takes them.
        works: whether sdrt has the name itself. Such rows are only in the document.
    """

    name: str
    what: str
    ours: str
    harmless: tuple[Any, ...] = ()
    works: bool = False

    def takes(self, value: object) -> bool:
        """Tell whether `value` asks for what sdrt does anyway."""
        # By type and value, because 0 == False. Arrays and objects of other libraries never count.
        return any(type(value) is type(one) and value == one for one in self.harmless)


def same(names: str, what: str, ours: str, harmless: tuple[Any, ...] = ()) -> tuple[Word, ...]:
    """A row for each of `names`, which are separated by spaces and mean the same."""
    return tuple(Word(name, what, ours, harmless) for name in names.split())


def find(name: str, words: Sequence[Word]) -> Word | None:
    """Return the row for `name`: the one with exactly this name, else the first whose pattern fits."""
    rows = [word for word in words if not word.works]
    return next(
        (word for word in rows if word.name == name),
        next((word for word in rows if "*" in word.name and fnmatchcase(name, word.name)), None),
    )


def no_argument(
    function: str, name: str, known: Iterable[str], words: Sequence[Word]
) -> UnknownArgumentError:
    """Return the error for an argument that `function` does not have."""
    what, remedy = _explained(name, known, words, f"its arguments are in help({function})")
    return UnknownArgumentError.advised(f"{function} has no argument {what}", remedy, argument=name)


def no_attribute(owner: str, name: str, known: Iterable[str], words: Sequence[Word]) -> UnknownAttributeError:
    """Return the error for an attribute that `owner` does not have."""
    known = sorted(known)
    what, remedy = _explained(name, known, words, f"it has {', '.join(known)}")
    return UnknownAttributeError.advised(f"{owner} has no {what}", remedy, argument=name)


def no_name(name: str, known: Sequence[str], words: Sequence[Word]) -> UnknownNameError:
    """Return the error for a name that cannot be imported from sdrt."""
    what, remedy = _explained(name, known, words, f"it has {', '.join(known)}")
    return UnknownNameError.advised(f"sdrt has no {what}", remedy, argument=name)


def _explained(name: str, known: Iterable[str], words: Sequence[Word], otherwise: str) -> tuple[str, str]:
    """Return `name` with what it is, if that is known, and what to write instead of it."""
    shown = name if name.isidentifier() and len(name) <= _LONGEST else brief(name)
    word = find(name, words)
    # A pattern is for many names, so it gives way to a name that is nearly the same.
    likeness = _LIKENESS if word is None or word.name == "*" else _NEARLY_SAME
    close = difflib.get_close_matches(name[:_LONGEST], list(known), n=1, cutoff=likeness)
    if close and (word is None or "*" in word.name):
        return shown, f"did you mean {close[0]}?"
    return (shown, otherwise) if word is None else (f"{shown} ({word.what})", word.ours)
