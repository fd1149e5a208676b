"""The prompt syntax of A1111's web UI: weights, BREAK, editing, alternation and AND.

The parser reads a text in one pass, with a stack of open brackets. As in A1111's web UI, text that does not parse is
plain text, so brackets never make a prompt an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sdrt.common.messages import brief
from sdrt.errors import RequestError

__all__ = ["Fragment", "Part", "bounded", "parse_parts", "parse_weights", "scheduled", "weighed"]

_EMPHASIS = 1.1
_MOST_WEIGHT = 1000.0
"""With larger weights, embeddings in float32 lose the words."""

_AND = re.compile(r"\bAND\b")
_BREAK = re.compile(r"\bBREAK\b")
# Each run of digits matches in one way only, or long ones would take quadratic time.
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)\s*")
# Escapes, brackets, the marks of editing and alternation, and everything between.
_TOKENS = re.compile(r"\\.|[\\()\[\]:|]|[^\\()\[\]:|]+", re.DOTALL)
_OPENING = {"]": "[", ")": "("}


@dataclass(frozen=True)
class Fragment:
    """A piece of a prompt, and its weight."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Part:
    """The text between two ANDs, with its editing still in it, and its weight."""

    text: str
    weight: float = 1.0


def parse_parts(prompt: str) -> list[Part]:
    """Split a prompt at AND. A part may end in ``:weight``, which is 1 by default.

    Raises:
        RequestError: a weight is out of bounds.
    """
    texts = _AND.split(prompt)
    if len(texts) == 1:
        return [Part(prompt)]
    return [_part(text) for text in texts]


def _part(text: str) -> Part:
    said, colon, weight = text.rpartition(":")
    if not colon or not _NUMBER.fullmatch(weight):
        return Part(text)
    return Part(said.rstrip(), bounded(float(weight), text))


def scheduled(text: str, steps: int) -> list[str]:
    """The text of each of `steps` steps, after prompt editing and alternation.

    ``[from:to:when]`` changes the text after `when` steps, or after that share of all steps if it is below 1.
    ``[to:when]`` adds text, ``[from::when]`` removes it. ``[a|b]`` is a in the first step, b in the second, a in the
    third.
    """
    tree = _parse_editing(text)
    if not tree.changes:
        return [text] * steps
    return [_text_at(tree, step, steps) for step in range(1, steps + 1)]


def parse_weights(text: str) -> list[list[Fragment]]:
    """Fragments with their weights, in a list for each stretch between BREAKs.

    ``(x)`` multiplies the weight by 1.1, ``[x]`` divides it by 1.1, ``(x:1.3)`` multiplies it by 1.3. Brackets nest. A
    backslash escapes a bracket. A bracket that is never closed reaches to the end, and one that closes nothing is text.

    Raises:
        RequestError: the product of the weights is too large.
    """
    pieces: list[str] = []
    # For each bracket, the pieces in it and its factor. `weighed` multiplies them at the end.
    factors: list[tuple[int, int, float]] = []
    rounds: list[int] = []
    squares: list[int] = []
    tokens = _TOKENS.findall(text)
    index = 0
    while index < len(tokens):
        token = tokens[index]
        index += 1
        if len(token) > 1 and token[0] == "\\":
            pieces.append(token[1:] if token[1] in "()[]\\" else token)
        elif token == "(":
            rounds.append(len(pieces))
        elif token == "[":
            squares.append(len(pieces))
        elif token == ":" and rounds and (weight := _weight_ahead(tokens, index)) is not None:
            factors.append((rounds.pop(), len(pieces), weight))
            index += 2
        elif token == ")" and rounds:
            factors.append((rounds.pop(), len(pieces), _EMPHASIS))
        elif token == "]" and squares:
            factors.append((squares.pop(), len(pieces), 1 / _EMPHASIS))
        else:
            pieces.append(token)
    factors += [(start, len(pieces), _EMPHASIS) for start in rounds]
    factors += [(start, len(pieces), 1 / _EMPHASIS) for start in squares]
    return _stretches(weighed(pieces, factors))


def _weight_ahead(tokens: Sequence[str], index: int) -> float | None:
    """The number in ``:number)``, whose colon was just read. None if something else follows."""
    if index + 1 < len(tokens) and tokens[index + 1] == ")" and _NUMBER.fullmatch(tokens[index]):
        return float(tokens[index])
    return None


def weighed(pieces: Sequence[str], factors: Sequence[tuple[int, int, float]]) -> Iterator[Fragment]:
    """Pieces with the products of the factors around them, in one pass over the starts and ends of brackets.

    It adds and subtracts logarithms and counts zeros and signs, so that it never divides by a factor.

    Raises:
        RequestError: a product is too large.
    """
    logs, zeros, signs = ([0.0] * (len(pieces) + 1), [0] * (len(pieces) + 1), [0] * (len(pieces) + 1))
    for start, end, factor in factors:
        for place, way in ((start, 1), (end, -1)):
            # A number of 400 digits is infinite, and infinity could not be subtracted again.
            logs[place] += way * math.log(min(abs(factor), 1e30)) if factor else 0.0
            zeros[place] += way if not factor else 0
            signs[place] += way if factor < 0 else 0
    log, zero, sign = 0.0, 0, 0
    for index, piece in enumerate(pieces):
        log, zero, sign = log + logs[index], zero + zeros[index], sign + signs[index]
        if log > math.log(_MOST_WEIGHT) and not zero:
            raise RequestError.advised(
                f"the prompt's weights multiply to more than {_MOST_WEIGHT:g} at {brief(piece.strip())}",
                "use smaller weights",
                argument="prompt",
            )
        weight = 0.0 if zero else round(math.exp(log), 12)
        yield Fragment(piece, -weight if sign % 2 else weight)


def _stretches(fragments: Iterator[Fragment]) -> list[list[Fragment]]:
    """Join neighbours of the same weight, then split at BREAK."""
    joined: list[tuple[list[str], float]] = []
    for fragment in fragments:
        if joined and joined[-1][1] == fragment.weight:
            joined[-1][0].append(fragment.text)
        else:
            joined.append(([fragment.text], fragment.weight))
    stretches: list[list[Fragment]] = [[]]
    for texts, weight in joined:
        between = _BREAK.split("".join(texts))
        for number, text in enumerate(between):
            if number:
                stretches.append([])
                text = text.lstrip()
            if number + 1 < len(between):
                text = text.rstrip()
            if text:
                stretches[-1].append(Fragment(text, weight))
    return stretches


def bounded(weight: float, where: str) -> float:
    """The weight, if it is within bounds. Otherwise raises `RequestError`, which quotes `where` it is."""
    if not abs(weight) <= _MOST_WEIGHT:
        raise RequestError.expected(
            f"the weight of {brief(where)} is {weight:g}",
            f"-{_MOST_WEIGHT:g} to {_MOST_WEIGHT:g}",
            argument="prompt",
        )
    return weight


@dataclass
class _Bracket:
    """A bracket, or the whole text. Bars separate its options, colons the fields of an option. A field has items."""

    opening: str = ""
    closing: str = ""
    options: list[list[list[str | _Bracket]]] = field(default_factory=lambda: [[[]]])
    kind: str = "text"
    when: float = 0.0
    changes: bool = False

    def add(self, item: str | _Bracket) -> None:
        self.options[-1][-1].append(item)
        self.changes = self.changes or (isinstance(item, _Bracket) and item.changes)


def _parse_editing(text: str) -> _Bracket:
    open_brackets = [_Bracket()]
    unclosed = {"[": 0, "(": 0}
    for token in _TOKENS.findall(text):
        if token in unclosed:
            unclosed[token] += 1
            open_brackets.append(_Bracket(opening=token))
        elif token in _OPENING and unclosed[_OPENING[token]]:
            while open_brackets[-1].opening != _OPENING[token]:
                # A bracket without a closing one of its kind is text, with its contents.
                unclosed[open_brackets[-1].opening] -= 1
                _leave(open_brackets)
            unclosed[_OPENING[token]] -= 1
            open_brackets[-1].closing = token
            _tell_apart(open_brackets[-1])
            _leave(open_brackets)
        elif token == "|" and len(open_brackets) > 1:
            open_brackets[-1].options.append([[]])
        elif token == ":" and len(open_brackets) > 1:
            open_brackets[-1].options[-1].append([])
        else:
            open_brackets[-1].add(token)
    while len(open_brackets) > 1:
        _leave(open_brackets)
    return open_brackets[0]


def _leave(open_brackets: list[_Bracket]) -> None:
    bracket = open_brackets.pop()
    open_brackets[-1].add(bracket)


def _tell_apart(bracket: _Bracket) -> None:
    """Decide whether a bracket is alternation, editing, or only a weight."""
    if bracket.opening != "[":
        return
    fields = bracket.options[0]
    if len(bracket.options) > 1:
        bracket.kind, bracket.changes = "alternation", True
    elif 2 <= len(fields) <= 3 and (when := _number(fields[-1])) is not None:
        bracket.kind, bracket.when, bracket.changes = "editing", when, True


def _number(items: Sequence[str | _Bracket]) -> float | None:
    if len(items) == 1 and isinstance(items[0], str) and _NUMBER.fullmatch(items[0]):
        return float(items[0])
    return None


def _text_at(tree: _Bracket, step: int, steps: int) -> str:
    """The text in a step, counted from 1. Not recursive, because brackets may nest thousands of times."""
    done: list[str] = []
    todo: list[str | _Bracket] = [tree]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            done.append(item)
        else:
            todo.extend(reversed(_items_at(item, step, steps)))
    return "".join(done)


def _items_at(bracket: _Bracket, step: int, steps: int) -> list[str | _Bracket]:
    if bracket.kind == "alternation":
        return _rejoined([bracket.options[(step - 1) % len(bracket.options)]])
    if bracket.kind == "editing":
        *_, before, after = [[], *bracket.options[0][:-1]]
        last = bracket.when * steps if bracket.when < 1 else bracket.when
        return before if step <= last else after
    return [bracket.opening, *_rejoined(bracket.options), bracket.closing]


def _rejoined(options: Sequence[Sequence[Sequence[str | _Bracket]]]) -> list[str | _Bracket]:
    """The items, with the bars and colons between them."""
    items: list[str | _Bracket] = []
    for number, fields in enumerate(options):
        if number:
            items.append("|")
        for place, inside in enumerate(fields):
            if place:
                items.append(":")
            items.extend(inside)
    return items
