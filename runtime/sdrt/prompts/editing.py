"""Prompt editing and alternation, as in A1111's web UI since 1.6.

``[from:to:when]`` changes a part of the prompt during the run, ``[a|b]`` alternates from step to step.

A bracket means something only if everything in it is well formed. Any other bracket or colon is text, and so are the
brackets around it. As in A1111's web UI, nothing changes at all in a prompt that has a bar outside of an alternation,
or a backslash before nothing: its grammar does not accept such a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["scheduled"]

# Each run of digits matches in one way only, or long ones would take quadratic time.
_NUMBER = re.compile(r"\s*([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*")
# Escapes, the marks of the grammar, and everything between. A lone backslash is an error.
_TOKENS = re.compile(r"\\.|[\\()\[\]:|]|[^\\()\[\]:|]+")
_CLOSING = {"(": ")", "[": "]"}


def scheduled(text: str, steps: int, steps_before: int = 0) -> list[str]:
    """Return the text of each of `steps` steps, after prompt editing and alternation.

    ``[from:to:when]`` changes the text after `when` steps. A number with a point is a share of the steps: ``0.5`` is
    half of them, ``1.0`` all. ``[to:when]`` adds text, ``[from::when]`` removes it. ``[a|b]`` is a in the first step,
    b in the second, a in the third.

    Args:
        text: the prompt, or a part of it.
        steps: the number of steps of this pass.
        steps_before: the number of steps of the pass before it, if any. Whole numbers count on from there, and shares
            from 1 to 2 are those of this pass.
    """
    items = _parsed(text)
    if items is None or all(isinstance(item, str) for item in items):
        return [text] * steps
    span = _Span(steps, steps_before)
    return [_text_at(items, step, span) for step in range(1, steps + 1)]


@dataclass(frozen=True)
class _Span:
    """The number of steps of a pass, and of the pass before it."""

    steps: int
    before: int

    def last_step(self, when: str) -> int:
        """Return the last step before the change that ``[from:to:when]`` asks for: 0 if it comes before this pass."""
        number = float(when)
        if "." in when:
            number = (number - (1.0 if self.before else 0.0)) * self.steps
        else:
            number -= self.before
        return int(min(max(number, 0.0), self.steps))


@dataclass(frozen=True)
class _Weighed:
    """A bracket that only weighs its contents."""

    items: Sequence[_Item]

    def at(self, step: int, span: _Span) -> Sequence[_Item]:
        return self.items


@dataclass(frozen=True)
class _Edited:
    before: Sequence[_Item]
    after: Sequence[_Item]
    when: str

    def at(self, step: int, span: _Span) -> Sequence[_Item]:
        return self.before if step <= span.last_step(self.when) else self.after


@dataclass(frozen=True)
class _Alternating:
    options: Sequence[Sequence[_Item]]

    def at(self, step: int, span: _Span) -> Sequence[_Item]:
        return self.options[(step - 1) % len(self.options)]


_Item = str | _Weighed | _Edited | _Alternating


def _text_at(items: Sequence[_Item], step: int, span: _Span) -> str:
    """The text in a step, counted from 1. Not recursive, because brackets may nest thousands of times."""
    done: list[str] = []
    todo = list(reversed(items))
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            done.append(item)
        else:
            todo.extend(reversed(item.at(step, span)))
    return "".join(done)


@dataclass
class _Open:
    """A bracket that is still open: its fields, and the marks between them."""

    opening: str
    marks: str = ""
    fields: list[list[_Item]] = field(default_factory=lambda: [[]])

    def closed(self, closing: str) -> _Item | None:
        """Return what the bracket means, or None if it is not well formed."""
        if _CLOSING[self.opening] != closing:
            return None
        if not self.marks or (self.opening == "(" and self.marks == ":"):
            return _Weighed([*self.as_text(), closing])
        if self.opening == "(":
            return None
        if not self.marks.strip("|"):
            return _Alternating(self.fields)
        if self.marks in (":", "::") and (when := _number(self.fields[-1])) is not None:
            *_, before, after = [[], *self.fields[:-1]]
            return _Edited(before, after, when)
        return None

    def as_text(self) -> Iterator[_Item]:
        """Yield the bracket and the marks as text, with the contents between them."""
        yield self.opening
        yield from self.fields[0]
        for mark, items in zip(self.marks, self.fields[1:], strict=True):
            yield mark
            yield from items


def _number(items: Sequence[_Item]) -> str | None:
    if len(items) == 1 and isinstance(items[0], str) and (found := _NUMBER.fullmatch(items[0])):
        return found[1]
    return None


def _parsed(text: str) -> list[_Item] | None:
    """The items of a text. None if A1111's grammar does not accept it."""
    items: list[_Item] = []
    opened: list[_Open] = []
    for token in _TOKENS.findall(text):
        if token == "\\":
            return None
        if token in _CLOSING:
            opened.append(_Open(token))
        elif token in (":", "|") and opened:
            opened[-1].marks += token
            opened[-1].fields.append([])
        elif token == "|":
            return None
        elif token not in (")", "]"):
            (opened[-1].fields[-1] if opened else items).append(token)
        elif opened and (closed := opened[-1].closed(token)) is not None:
            opened.pop()
            (opened[-1].fields[-1] if opened else items).append(closed)
        else:
            # A bracket that is text makes text of all brackets around it.
            if not _flush(opened, items):
                return None
            items.append(token)
    return items if _flush(opened, items) else None


def _flush(opened: list[_Open], items: list[_Item]) -> bool:
    """Move the contents of all open brackets to `items`, as text. False if that leaves a bar in the text."""
    if any("|" in bracket.marks for bracket in opened):
        return False
    for bracket in opened:
        items.extend(bracket.as_text())
    opened.clear()
    return True
