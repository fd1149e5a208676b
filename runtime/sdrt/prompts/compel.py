r"""What is written in a prompt, in the grammar of Compel (https://github.com/damian0815/compel, its doc/syntax.md).

``word+``, ``word--``, ``(several words)1.3`` and ``"in quotes"+`` weigh, and they nest; ``("a", "b").blend(1, 0.5)``
mixes prompts, ``("a", "b").and(1, 0.5)`` sets them side by side. A backslash takes ``( ) " , . + - =`` for itself.

As in Compel, a bracket or quote is one only where a word may begin and if all that it holds can be read; else it is
text, as it is there. Compel leaves the backslash of ``\+`` in the text, and here it is taken out; a quote may go over
several lines here.
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
"""Each fragment that counts less than 1 takes a run of the text encoder of its own."""

_SPACES = r" \t\n\r\x0b\x0c"
_SPACE = re.compile(rf"[{_SPACES}]*")
_NUMBER = r"(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)"
_SIGNS = re.compile(r"\++|-+")
_WEIGHT = re.compile(rf"\++|-+|{_NUMBER}")
_ATTEND = re.compile(rf"\s*\.attend\s*\(\s*(\++|-+|{_NUMBER})\s*\)")
# Marks that a backslash takes for themselves, signs that something follows, and all that means nothing.
_WORD = re.compile(rf"""(?:\\[()",.+=-]|[+-](?![{_SPACES}()",.+=-]|\Z)|[^{_SPACES}()",.+=-])+""")
# A textual inversion may be called style.v2.
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
    ".swap": "controls cross-attention, which is not done here: write the words that you want, or change them between "
    "steps, [cat:dog:0.5] in the syntax a1111",
    "useLora": "loads a LoRA, which is not done here: leave it out",
}
_REMEDIES["withLora"] = _REMEDIES["useLora"]


@dataclass(frozen=True)
class Clause:
    """What stands side by side with others: texts in fragments, most often one, mixed by their shares."""

    texts: Sequence[Sequence[Fragment]]
    shares: Sequence[float] = (1.0,)
    weight: float = 1.0


def parse_compel(prompt: str) -> list[Clause]:
    """The clauses of a prompt, at least one. Time grows with the prompt's length.

    Raises:
        RequestError: weights are out of bounds or do not fit the texts, or what is asked for is not done here.
    """
    if found := _REFUSED.search(prompt):
        raise RequestError(f"the prompt's {found[1]}(…) {_REMEDIES[found[1]]}")
    text = _UNSPACED_COMMA.sub(", ", prompt)
    return _joined(text) or [Clause([_fragments(text)])]


def _joined(text: str) -> list[Clause]:
    """The clauses of ``(…, …).blend(…)`` and ``(…, …).and(…)``; none of another text."""
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
    """Where each item of a list lies, and where the list ends; None where it is no list."""
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
    """Where one item lies, and where what follows it begins: a quote, whatever it holds, a bracket or a word."""
    end = _Reader(text).group(position, len(text)) if text.startswith(('"', "("), position) else None
    if end is not None:
        return (position, end), end
    if text.startswith('"', position):
        closing = _QUOTE.search(text, position + 1)
        return ((position + 1, closing.start()), closing.end()) if closing else (None, position)
    word = _WORD.match(text, position)
    return (word.span(), word.end()) if word else (None, position)


def _shares(options: str, count: int) -> list[float]:
    """What each text of a blend counts: their sum is 1, unless they are told to stay as they are."""
    names = [name.strip() for name in options.split(",")]
    free = names[-1] == "no_normalize"
    weights = _numbers("blend", names[:-1] if free else names, count)
    total = 1.0 if free else sum(weights)
    if not total:
        raise RequestError(
            f"the weights of .blend({brief(options)}) add up to 0: let them not, or end with no_normalize"
        )
    return [bounded(weight / total, f".blend({options})") for weight in weights]


def _numbers(name: str, options: Sequence[str], count: int) -> list[float]:
    """One for each text; 1 where there are none at all."""
    given = [option.strip() for option in options]
    if given in ([], [""]):
        return [1.0] * count
    if len(given) != count or not all(_SHARE.fullmatch(option) for option in given):
        raise RequestError(
            f"the weights of .{name}({brief(', '.join(given))}) are not {count} numbers: give one for each text"
        )
    return [bounded(float(option), f".{name}({', '.join(given)})") for option in given]


def _fragments(text: str, start: int = 0, end: int | None = None) -> list[Fragment]:
    """Fragments of a text that is not joined with others; neighbours of one weight are one."""
    end = len(text) if end is None else end
    if found := _JOINS.search(text, start, end):
        raise RequestError(
            f"the prompt has {brief(found[0])} within other text: join whole prompts, each in quotes, with nothing "
            'around them, such as ("a red cat", "a red dog").blend(1, 0.5)'
        )
    reader = _Reader(text)
    reader.read(start, end)
    fragments = list(_fused(weighed(reader.pieces, reader.factors)))
    if (count := sum(fragment.weight < 1 for fragment in fragments)) > _MOST_DOWN:
        raise RequestError(
            f"the prompt has {count} stretches that count less than 1: expected at most {_MOST_DOWN}; put "
            "neighbours into one bracket"
        )
    return fragments


def _fused(fragments: Iterator[Fragment]) -> Iterator[Fragment]:
    for weight, same in groupby(fragments, lambda fragment: fragment.weight):
        yield Fragment("".join(fragment.text for fragment in same).strip(" "), weight)


def _after_space(text: str, position: int, end: int) -> int:
    found = _SPACE.match(text, position, end)
    assert found is not None  # nothing is space enough
    return found.end()


def _factor(weight: str) -> float:
    """Of ``++``, ``--`` or a number."""
    if weight[0] in "+-":
        # Beyond a thousand of them, the factor is out of bounds, or nothing.
        return float((_PLUS if weight[0] == "+" else _MINUS) ** min(len(weight), 1000))
    return float(weight)


@dataclass(frozen=True)
class _Open:
    """A bracket or quote that is open.

    Attributes:
        mark: what it began with.
        start: where that is.
        pieces: how many there were before.
        limit: where it ends at the latest.
        outer: where what it stands in ends.
    """

    mark: str
    start: int
    pieces: int
    limit: int
    outer: int


class _Reader:
    """Reads a text into pieces, each with the space before it, and the factors of stretches of them.

    A bracket that turns out to be none is read again, as text. All that are open then are none; that they are not
    tried again keeps the time within the text's length.
    """

    def __init__(self, text: str) -> None:
        self.pieces: list[str] = []
        self.factors: list[tuple[int, int, float]] = []
        self._text = text
        self._failed: set[int] = set()
        self._end = 0

    def read(self, position: int, end: int) -> None:
        """Read words of any kind."""
        while (position := _after_space(self._text, position, end)) < end:
            behind = (
                self.group(position, end)
                if self._text[position] in '("'
                else self._weighed_word(position, end)
            )
            position = behind or self._free_word(position, end)

    def group(self, start: int, end: int) -> int | None:
        """Read a bracket or quote; where it ends, or None, with nothing read, where it is none."""
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
        """Read one item within brackets; where it ends, or None where there is none."""
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
        """Leave the innermost bracket or quote, with the weight that follows it."""
        closed = opened.pop()
        factor, end = self._factor_at(behind, closed.outer, _WEIGHT)
        self.factors.append((closed.pieces, len(self.pieces), factor))
        return end

    def _fail(self, opened: Sequence[_Open], pieces: int, factors: int) -> None:
        """Forget what was read; what stands in a quote may be a bracket without it."""
        del self.pieces[pieces:], self.factors[factors:]
        for one in opened:
            self._failed.add(one.start)
            if one.mark == '"':
                return

    def _weighed_word(self, position: int, end: int) -> int | None:
        """A word and its weight; None, with nothing read, where it has none."""
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
        """The factor that is written at `position`, and where it ends; 1 and `position` where there is none."""
        found = _ATTEND.match(self._text, position, end) or adjacent.match(self._text, position, end)
        return (_factor(found[found.lastindex or 0]), found.end()) if found else (1.0, position)

    def _plain(self, position: int, end: int) -> int | None:
        """Within brackets: a word, a comma or a point."""
        word = _WORD.match(self._text, position, end)
        if word is None and self._text[position : min(position + 1, end)] not in (",", "."):
            return None
        return self._add(position, word.end() if word else position + 1)

    def _free_word(self, position: int, end: int) -> int:
        """Outside of brackets: all up to the next space."""
        word = _FREE_WORD.match(self._text, position, end)
        assert word is not None  # no space stands here
        return self._add(position, word.end())

    def _add(self, position: int, end: int) -> int:
        """One more piece. Compel has spaces between all; a point in a word has none here, which tokens do not tell."""
        glued = position == self._end and _WITHIN_WORD.match(self._text, position)
        self.pieces.append(("" if glued else " ") + _ESCAPED.sub(r"\1", self._text[position:end]))
        self._end = end
        return end
