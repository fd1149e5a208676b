"""The prompt syntax of A1111's web UI: weights, BREAK and AND. `editing` reads what changes between steps.

The parser reads a text in one pass, with a stack of open brackets. As in A1111's web UI, text that does not parse is
plain text, so brackets never make a prompt an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdrt.common.messages import brief
from sdrt.errors import RequestError

__all__ = ["Fragment", "Part", "bounded", "parse_parts", "parse_weights", "weighed"]

_EMPHASIS = 1.1
_MOST_WEIGHT = 1000.0
"""With larger weights, embeddings in float32 lose the words."""

_AND = re.compile(r"\bAND\b")
_BREAK = re.compile(r"\bBREAK\b")
# Each run of digits matches in one way only, or long ones would take quadratic time.
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)\s*")
# Escapes, brackets, colons, and everything between.
_TOKENS = re.compile(r"\\[\\()\[\]]|[\\()\[\]:]|[^\\()\[\]:]+")


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

    As in A1111's web UI, a prompt without AND is a part too, so a number after its last colon multiplies its guidance.

    Raises:
        RequestError: a weight is out of bounds.
    """
    texts = _AND.split(prompt)
    return [_part(text, alone=len(texts) == 1) for text in texts]


def _part(text: str, *, alone: bool) -> Part:
    said, colon, weight = text.rpartition(":")
    if not colon or not _NUMBER.fullmatch(weight):
        return Part(text)
    number = float(weight)
    if alone and abs(number) > _MOST_WEIGHT:
        raise RequestError.expected(
            f"the prompt's last colon makes a weight of {brief(weight.strip())}",
            f"-{_MOST_WEIGHT:g} to {_MOST_WEIGHT:g}, or a comma after the number to keep it as words",
            argument="prompt",
        )
    return Part(said.rstrip(), bounded(number, text))


def parse_weights(text: str) -> list[list[Fragment]]:
    r"""Fragments with their weights, in a list for each stretch between BREAKs.

    ``(x)`` multiplies the weight by 1.1, ``[x]`` divides it by 1.1, ``(x:1.3)`` multiplies it by 1.3. Brackets nest. A
    backslash escapes a bracket or another backslash; any other is left out, so ``(x\:1.3)`` weighs too. A bracket that
    is never closed reaches to the end, and one that closes nothing is text.

    A1111's web UI reads a BREAK within round or square brackets as a word. Here it begins a stretch like any other.

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
        if token[0] == "\\":
            pieces.append(token[1:])
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
