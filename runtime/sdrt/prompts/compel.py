r"""The prompt syntax of Compel (https://github.com/damian0815/compel, doc/syntax.md).

``word+``, ``word--``, ``(several words)1.3`` and ``"in quotes"+`` change weights, and nest.
``("a", "b").blend(1, 0.5)`` mixes prompts, ``("a", "b").and(1, 0.5)`` puts them side by side. A backslash escapes
``( ) " , . + - =``.

As in Compel, a bracket or quote counts only at the beginning of a word, and only if its contents can be parsed.
Otherwise it is text. There are two differences: Compel keeps the backslash of ``\+`` in the text, and its quotes cannot
span several lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.prompts.a1111 import Fragment, bounded, weighed

__all__ = ["Clause", "parse_compel"]

_PLUS, _MINUS = 1.1, 0.9
_MOST_DOWN = 100
"""The most fragments with a weight below 1. Each needs its own run of the text encoder."""

_SPACES = r" \t\n\r\x0b\x0c"
_SPACE = re.compile(rf"[{_SPACES}]*")
_NUMBER = r"(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)"
_SIGNS = re.compile(r"\++|-+")
_WEIGHT = re.compile(rf"\++|-+|{_NUMBER}")
_ATTEND = re.compile(rf"\s*\.attend\s*\(\s*(\++|-+|{_NUMBER})\s*\)")
# Escaped marks, signs within a word, and all characters without a meaning.
_WORD = re.compile(rf"""(?:\\[()",.+=-]|[+-](?![{_SPACES}()",.+=-]|\Z)|[^{_SPACES}()",.+=-])+""")
# The name of a textual inversion may contain a point, as in style.v2.
_WITHIN_WORD = re.compile(r"(?<=[^\W_])\.|(?<=\.)[^\W_]")
_FREE_WORD = re.compile(rf"[^{_SPACES}]+")
_ESCAPED = re.compile(r'\\([()",.+=-])')
_UNSPACED_COMMA = re.compile(r",(?=\S)")
_QUOTE = re.compile(r'(?<!\\)"')
_REFUSED = re.compile(r"(?<!\\)(\.swap|\b(?:use|with)Lora)\s*\(")
_JOINED = re.compile(r"\s*\.(blend|and|add)\s*\(([^()]*)\)\s*")
_JOINS = re.compile(r'(?<!\\)[)"]\s*\.(?:blend|and|add)\s*\(')
_SHARE = re.compile(rf"[+-]?{_NUMBER}")
_REMEDIES = {
    ".swap": "is not supported: write the words that you want, or change them between steps, as with [cat:dog:0.5] in "
    "the syntax a1111",
    "useLora": "is not supported: leave it out",
}
_REMEDIES["withLora"] = _REMEDIES["useLora"]


@dataclass(frozen=True)
class Clause:
    """A part of a prompt beside others: one text in fragments, or several that are mixed by their shares."""

    texts: Sequence[Sequence[Fragment]]
    shares: Sequence[float] = (1.0,)
    weight: float = 1.0


def parse_compel(prompt: str) -> list[Clause]:
    """The clauses of a prompt, at least one, in time proportional to the prompt's length.

    Raises:
        RequestError: weights are out of bounds or do not fit the texts, or the syntax is not supported.
    """
    if found := _REFUSED.search(prompt):
        raise RequestError(
            f"the prompt's {found[1]}(…) {_REMEDIES[found[1]]}", argument="prompt", fits=_REMEDIES[found[1]]
        )
    text = _UNSPACED_COMMA.sub(", ", prompt)
    return _joined(text) or [Clause([_fragments(text)])]


def _joined(text: str) -> list[Clause]:
    """The clauses of ``(…, …).blend(…)`` or ``(…, …).and(…)``. Empty for other texts."""
    start = _after_space(text, 0, len(text))
    items = _items(text, start + 1) if text.startswith("(", start) else None
    found = items and _JOINED.fullmatch(text, items[1])
    if not items or not found:
        return []
    texts = [_fragments(text, *span) for span in items[0]]
    if found[1] == "blend":
        return [Clause(texts, _shares(found[2], len(texts)))]
    weights = _numbers(found[1], found[2].split(","), len(texts))
    return [Clause([text], weight=weight) for text, weight in zip(texts, weights, strict=True)]


def _items(text: str, position: int) -> tuple[list[tuple[int, int]], int] | None:
    """The span of each item in a list, and the end of the list. None if there is no list."""
    spans = []
    while True:
        position = _after_space(text, position, len(text))
        span, position = _item(text, position)
        position = _after_space(text, position, len(text))
        if span is None or text[position : position + 1] not in (",", ")"):
            return None
        spans.append(span)
        position += 1
        if text[position - 1] == ")":
            return spans, position


def _item(text: str, position: int) -> tuple[tuple[int, int] | None, int]:
    """The span of one item, a quote with any contents, a bracket or a word, and where the rest begins."""
    end = _Reader(text).group(position, len(text)) if text.startswith(('"', "("), position) else None
    if end is not None:
        return (position, end), end
    if text.startswith('"', position):
        closing = _QUOTE.search(text, position + 1)
        return ((position + 1, closing.start()), closing.end()) if closing else (None, position)
    word = _WORD.match(text, position)
    return (word.span(), word.end()) if word else (None, position)


def _shares(options: str, count: int) -> list[float]:
    """The share of each text in a blend. They sum to 1, except with ``no_normalize``."""
    names = [name.strip() for name in options.split(",")]
    free = names[-1] == "no_normalize"
    weights = _numbers("blend", names[:-1] if free else names, count)
    total = 1.0 if free else sum(weights)
    if not total:
        raise _refused(
            f"the weights of .blend({brief(options)}) add up to 0", "choose others, or end with no_normalize"
        )
    return [bounded(weight / total, f".blend({options})") for weight in weights]


def _numbers(name: str, options: Sequence[str], count: int) -> list[float]:
    """The number for each text. All are 1 if none is given."""
    given = [option.strip() for option in options]
    if given in ([], [""]):
        return [1.0] * count
    if len(given) != count or not all(_SHARE.fullmatch(option) for option in given):
        raise _refused(
            f"the weights of .{name}({brief(', '.join(given))}) are not {count} numbers",
            "give one for each text",
        )
    return [bounded(float(option), f".{name}({', '.join(given)})") for option in given]


def _fragments(text: str, start: int = 0, end: int | None = None) -> list[Fragment]:
    """The fragments of a single text. Neighbours of the same weight are joined."""
    end = len(text) if end is None else end
    if found := _JOINS.search(text, start, end):
        raise _refused(
            f"the prompt has {brief(found[0])} within other text",
            'quote whole prompts and write nothing around them, as in ("a red cat", "a red dog").blend(1, 0.5)',
        )
    reader = _Reader(text)
    reader.read(start, end)
    fragments = list(_fused(weighed(reader.pieces, reader.factors)))
    if (count := sum(fragment.weight < 1 for fragment in fragments)) > _MOST_DOWN:
        raise RequestError.expected(
            f"the prompt has {count} stretches with a weight below 1",
            f"at most {_MOST_DOWN}; put neighbours into one bracket",
            argument="prompt",
        )
    return fragments


def _fused(fragments: Iterator[Fragment]) -> Iterator[Fragment]:
    for weight, same in groupby(fragments, lambda fragment: fragment.weight):
        yield Fragment("".join(fragment.text for fragment in same).strip(" "), weight)


def _after_space(text: str, position: int, end: int) -> int:
    found = _SPACE.match(text, position, end)
    assert found is not None  # the pattern matches an empty text
    return found.end()


def _factor(weight: str) -> float:
    """The factor of ``++``, ``--`` or a number."""
    if weight[0] in "+-":
        # More than a thousand signs make the factor too large, or 0.
        return float((_PLUS if weight[0] == "+" else _MINUS) ** min(len(weight), 1000))
    return float(weight)


@dataclass(frozen=True)
class _Open:
    """An open bracket or quote.

    Attributes:
        mark: its first character.
        start: the position of that.
        pieces: the number of pieces before it.
        limit: the last position where it may end.
        outer: the same limit of the text around it.
    """

    mark: str
    start: int
    pieces: int
    limit: int
    outer: int


class _Reader:
    """Reads a text into pieces, each with the space before it, and the factors of ranges of pieces.

    If a bracket cannot be parsed, it is read again as text, as are all brackets that are open at that point. They are
    not tried again, which keeps the time proportional to the text's length.
    """

    def __init__(self, text: str) -> None:
        self.pieces: list[str] = []
        self.factors: list[tuple[int, int, float]] = []
        self._text = text
        self._failed: set[int] = set()
        self._end = 0

    def read(self, position: int, end: int) -> None:
        """Read all words, brackets and quotes from `position` to `end`."""
        while (position := _after_space(self._text, position, end)) < end:
            behind = (
                self.group(position, end)
                if self._text[position] in '("'
                else self._weighed_word(position, end)
            )
            position = behind or self._free_word(position, end)

    def group(self, start: int, end: int) -> int | None:
        """Read a bracket or quote and return its end. None, with nothing read, if it cannot be parsed."""
        if start in self._failed:
            return None
        opened: list[_Open] = []
        position, counts = start, (len(self.pieces), len(self.factors))
        while True:
            limit = opened[-1].limit if opened else end
            behind = self._step(_after_space(self._text, position, limit), limit, opened)
            if behind is None:
                self._fail(opened, *counts)
                return None
            if not opened:
                return behind
            position = behind

    def _step(self, position: int, limit: int, opened: list[_Open]) -> int | None:
        """Read one item within brackets and return its end. None if there is none."""
        mark = self._text[position] if position < limit else ""
        if mark == "(":
            opened.append(_Open(mark, position, len(self.pieces), limit, limit))
            return position + 1
        if mark == '"':
            closing = _QUOTE.search(self._text, position + 1, limit)
            end = closing.start() if closing else position
            opened.append(_Open(mark, position, len(self.pieces), end, limit))
            return position + 1 if closing else None
        if mark == ")" and opened[-1].mark == "(":
            return self._close(position + 1, opened)
        if not mark and opened[-1].mark == '"':
            return self._close(position + 1, opened)
        return self._weighed_word(position, limit) or self._plain(position, limit)

    def _close(self, behind: int, opened: list[_Open]) -> int:
        """Close the innermost bracket or quote, and read the weight after it."""
        closed = opened.pop()
        factor, end = self._factor_at(behind, closed.outer, _WEIGHT)
        self.factors.append((closed.pieces, len(self.pieces), factor))
        return end

    def _fail(self, opened: Sequence[_Open], pieces: int, factors: int) -> None:
        """Discard what was read. Brackets inside a failed quote may still be valid without it."""
        del self.pieces[pieces:], self.factors[factors:]
        for one in opened:
            self._failed.add(one.start)
            if one.mark == '"':
                return

    def _weighed_word(self, position: int, end: int) -> int | None:
        """Read a word and its weight, and return the end. None, with nothing read, if it has no weight."""
        word = _WORD.match(self._text, position, end)
        if word is None:
            return None
        factor, behind = self._factor_at(word.end(), end, _SIGNS)
        if behind == word.end():
            return None
        self._add(*word.span())
        self.factors.append((len(self.pieces) - 1, len(self.pieces), factor))
        return behind

    def _factor_at(self, position: int, end: int, adjacent: re.Pattern[str]) -> tuple[float, int]:
        """The factor at `position`, and where it ends. 1 and `position` if there is none."""
        found = _ATTEND.match(self._text, position, end) or adjacent.match(self._text, position, end)
        return (_factor(found[found.lastindex or 0]), found.end()) if found else (1.0, position)

    def _plain(self, position: int, end: int) -> int | None:
        """Within brackets, read a word, a comma or a point."""
        word = _WORD.match(self._text, position, end)
        if word is None and self._text[position : min(position + 1, end)] not in (",", "."):
            return None
        return self._add(position, word.end() if word else position + 1)

    def _free_word(self, position: int, end: int) -> int:
        """Outside of brackets, read everything up to the next space."""
        word = _FREE_WORD.match(self._text, position, end)
        assert word is not None  # there is no space at `position`
        return self._add(position, word.end())

    def _add(self, position: int, end: int) -> int:
        """Add a piece. Compel puts spaces between all pieces. Here a point in a word gets none; tokens are the same."""
        glued = position == self._end and _WITHIN_WORD.match(self._text, position)
        self.pieces.append(("" if glued else " ") + _ESCAPED.sub(r"\1", self._text[position:end]))
        self._end = end
        return end


def _refused(problem: str, remedy: str) -> RequestError:
    return RequestError.advised(problem, remedy, argument="prompt")
