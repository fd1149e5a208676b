"""Choices in a prompt, in the syntax of Dynamic Prompts, an extension of A1111's web UI.

``{a|b}`` is a or b, ``{2$$a|b|c}`` is two of them, ``{1-2$$ and $$a|b|c}`` one or two with "and" between them, and
``{0.5::a|b}`` is b twice as often as a. ``__colors__`` is a line of the file ``colors.txt`` in a folder of wildcards.

A seed decides, so the same prompt, seed and files always give the same text.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.prompts.wildcard_files import WildcardFiles

__all__ = ["Expansion", "expand", "expand_wildcards", "wildcard_names"]

_MOST_DEPTH = 40
_MOST_LINES = 2000
"""The most lines that one prompt takes from files. A line may name several files, so they could explode."""
_MOST_CHARACTERS = 1_000_000

# An open brace, with what may stand before its options: how to choose, how many, and the text between them.
_BRACES = re.compile(
    r"\{(?:\s*(?P<mark>[~@!]))?"
    r"(?:\s*(?=[\d-])(?P<low>\d{1,9})?(?P<dash>-)?(?P<high>\d{1,9})?\s*\$\$(?:(?P<separator>[^${}]+)\$\$)?)?"
    r"|[|}]|[^{|}]+"
)
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*::")
_WILDCARD = re.compile(
    r"__(?P<mark>[~@!])?(?P<name>[^\s_{}$#()|<>:](?:(?!__)[^{}$#()|<>:\n])*)(?P<values>\([^()\n]*\))?__"
)
_VARIABLE = re.compile(r"\$\{\s*[A-Za-z_-][\w-]*\s*[}:=?]|%\{[^{}]*\$\$")


@dataclass(frozen=True)
class Expansion:
    """A prompt after all choices.

    Attributes:
        text: the prompt.
        choices: what was chosen, in the order of the prompt. A choice within another is a part of it.
    """

    text: str
    choices: tuple[str, ...] = ()


def expand_wildcards(prompt: str, seed: int, wildcards: str | os.PathLike[str] | None = None) -> str:
    """Replace each ``{a|b}`` and each ``__name__`` in a prompt by one of its options, as `sdrt generate` does.

    Args:
        prompt: the prompt.
        seed: the image's seed, which decides.
        wildcards: the folder with the files that ``__name__`` means.

    Raises:
        RequestError: a file is missing or cannot be read, or the prompt asks for something that sdrt does not support.
    """
    return expand(prompt, seed, None if wildcards is None else WildcardFiles(wildcards)).text


def expand(
    prompt: str, seed: int, files: WildcardFiles | None = None, *, negative: bool = False
) -> Expansion:
    """Make all choices of a prompt. The negative prompt of a seed chooses apart from its prompt.

    Raises:
        RequestError: as `expand_wildcards`.
    """
    chooser = random.Random(f"negative wildcards {seed}" if negative else f"wildcards {seed}")
    return _Expander(chooser, seed, files).expand(prompt)


def wildcard_names(text: str) -> list[str]:
    """Return each ``__name__`` in a text, in order."""
    return [found[0] for found in _wildcards(text)]


def _wildcards(text: str) -> Iterator[re.Match[str]]:
    position = 0
    while found := _WILDCARD.search(text, position):
        name = found["name"]
        # Underscores within words enclose no name with spaces: snake__case and other__case.
        in_words = text[found.start() - 1 : found.start()].isalnum() or text[found.end() :][:1].isalnum()
        if name != name.strip() or (" " in name and in_words):
            position = found.start() + 2
            continue
        position = found.end()
        yield found


class _Chosen(str):
    """A text that was chosen."""

    __slots__ = ()


@dataclass
class _Brace:
    """A brace that is still open, and the pieces of its options so far.

    Attributes:
        opening: the brace and what stands before its options, as it is written.
        found: the same, parsed. None for the whole text.
    """

    opening: str = ""
    found: re.Match[str] | None = None
    options: list[list[str]] = field(default_factory=lambda: [[]])

    @property
    def counts(self) -> bool:
        """Whether the brace says how many options to choose."""
        return self.found is not None and "$$" in self.opening

    def as_text(self) -> Iterator[str]:
        yield self.opening
        for number, pieces in enumerate(self.options):
            if number:
                yield "|"
            yield from pieces


class _Expander:
    """Makes the choices of one prompt."""

    def __init__(self, chooser: random.Random, seed: int, files: WildcardFiles | None) -> None:
        self._chooser, self._seed, self._files = chooser, seed, files
        self._lines = 0

    def expand(self, text: str, depth: int = 0) -> Expansion:
        """Choose within braces, the inner ones first. Then replace the names of files."""
        if found := _VARIABLE.search(text):
            raise RequestError.advised(
                f"the prompt has {brief(found[0])}: sdrt does not know Dynamic Prompts' variables and wraps",
                "write the text itself",
                argument="prompt",
            )
        pieces = self._without_braces(text, depth)
        spans, position = [], 0
        for piece in pieces:
            if isinstance(piece, _Chosen):
                spans.append((position, position + len(piece)))
            position += len(piece)
        return self._without_names("".join(pieces), spans, depth)

    def _without_braces(self, text: str, depth: int) -> list[str]:
        """Choose an option in each brace. Braces without a choice, and unpaired ones, are text."""
        braces = [_Brace()]
        for token in _BRACES.finditer(text):
            if token[0][0] == "{":
                braces.append(_Brace(token[0], token))
            elif token[0] == "|" and len(braces) > 1:
                braces[-1].options.append([])
            elif token[0] == "}" and len(braces) > 1:
                brace = braces.pop()
                braces[-1].options[-1] += self._closed(brace, depth)
            else:
                braces[-1].options[-1].append(token[0])
        return [piece for brace in braces for piece in brace.as_text()]

    def _closed(self, brace: _Brace, depth: int) -> list[str]:
        if len(brace.options) == 1 and not brace.counts:
            return [*brace.as_text(), "}"]
        options = ["".join(pieces) for pieces in brace.options]
        assert brace.found is not None  # only the whole text has none, and it is never closed
        mark = _checked_mark(brace.found["mark"], brace.opening)
        if brace.counts:
            return [_Chosen(self._several(options, brace.found, mark, depth))]
        if mark == "@":
            return [_Chosen(_weight(options[self._seed % len(options)])[1])]
        weights, texts = zip(*map(_weight, options), strict=True)
        # Not `choices`: a seed has always chosen in this way where there are no weights.
        if set(weights) == {1.0}:
            return [_Chosen(self._chooser.choice(texts))]
        return [_Chosen(self._pick(list(texts), list(weights), 1)[0])]

    def _several(self, options: list[str], found: re.Match[str], mark: str | None, depth: int) -> str:
        """Choose as many options as a brace asks for, without repeating one."""
        if mark == "@":
            raise _unsupported(found[0], "which takes options in turn, with a number of options")
        (weights, texts), lines = zip(*map(_weight, options), strict=True), False
        whole = _WILDCARD.fullmatch(texts[0].strip())
        if len(options) == 1 and whole and self._files is not None:
            # The lines of the file are the options, so that none is chosen twice.
            texts, lines = tuple(self._files.values(whole["name"])), True
            weights = (1.0,) * len(texts)
        low, high = _bounds(found, len(texts))
        chosen = self._pick(list(texts), list(weights), self._chooser.randint(low, high))
        if lines:
            self._count(len(chosen), depth, whole[0] if whole else "")
            chosen = ["".join(self._without_braces(line, depth + 1)) for line in chosen]
        separator = "," if found["separator"] is None else found["separator"]
        text = separator.join(one.lstrip() for one in chosen)
        # As in Dynamic Prompts, an empty option at an end leaves no separator behind.
        return text.removeprefix(separator).removesuffix(separator) if len(chosen) > 1 else text

    def _pick(self, texts: list[str], weights: list[float], count: int) -> list[str]:
        """Choose `count` texts in random order, each at most once. Those of weight 0 are never chosen."""
        pool = [index for index, weight in enumerate(weights) if weight]
        if not pool:
            raise RequestError.expected(
                f"the prompt's options {brief('|'.join(texts))} all have a weight of 0",
                "one weight above 0",
                argument="prompt",
            )
        chosen = []
        for _ in range(min(count, len(pool))):
            (index,) = self._chooser.choices(pool, [weights[index] for index in pool])
            pool.remove(index)
            chosen.append(texts[index])
        return chosen

    def _without_names(self, text: str, spans: Sequence[tuple[int, int]], depth: int) -> Expansion:
        """Replace each ``__name__``. `spans` are where the choices of braces are."""
        found = list(_wildcards(text))
        lines = [self._line(one, depth) for one in found]
        pieces, ends, position = list[str](), [(0, 0)], 0
        for one, line in zip(found, lines, strict=True):
            pieces += [text[position : one.start()], line]
            position = one.end()
            ends.append((position, sum(map(len, pieces))))
        made = "".join([*pieces, text[position:]])
        if found and len(made) > _MOST_CHARACTERS:
            raise RequestError.expected(
                f"with its wildcards the prompt has {len(made)} characters",
                f"at most {_MOST_CHARACTERS}",
                argument="prompt",
            )
        return Expansion(made, tuple(_choices(made, _joined([*spans, *(one.span() for one in found)]), ends)))

    def _line(self, found: re.Match[str], depth: int) -> str:
        """Choose a line of the files that a name means, and make the choices in it."""
        if self._files is None:
            raise RequestError.advised(
                f"the prompt has the wildcard {brief(found[0])}",
                "give the folder of its file with --wildcards, or read all characters as they are with "
                "--prompt-syntax plain",
                argument="--wildcards",
            )
        if found["values"]:
            raise _unsupported(found[0], "which gives values to a template")
        mark = _checked_mark(found["mark"], found[0])
        self._count(1, depth, found[0])
        lines = self._files.values(found["name"])
        line = lines[self._seed % len(lines)] if mark == "@" else self._chooser.choice(lines)
        return self.expand(line, depth + 1).text

    def _count(self, lines: int, depth: int, name: str) -> None:
        self._lines += lines
        if depth >= _MOST_DEPTH or self._lines > _MOST_LINES:
            raise RequestError.advised(
                f"the wildcard {brief(name)} leads to more and more wildcards",
                f"see that no file names itself; at most {_MOST_DEPTH} may be nested, and {_MOST_LINES} used",
                argument="--wildcards",
            )


def _weight(option: str) -> tuple[float, str]:
    found = _WEIGHT.match(option)
    return (float(found[1]), option[found.end() :]) if found else (1.0, option)


def _bounds(found: re.Match[str], most: int) -> tuple[int, int]:
    """The fewest and the most options to choose: ``2``, ``1-2``, ``-2`` from one, ``2-`` to all."""
    low = int(found["low"] or 1)
    high = int(found["high"] or most) if found["dash"] else low
    return min(low, high, most), min(max(low, high), most)


def _checked_mark(mark: str | None, where: str) -> str | None:
    if mark == "!":
        raise _unsupported(where, "which makes every combination")
    return mark


def _unsupported(what: str, meaning: str) -> RequestError:
    return RequestError.advised(
        f"the prompt has {brief(what)}, {meaning}: sdrt does not know this part of Dynamic Prompts",
        "write {a|b} or __name__",
        argument="prompt",
    )


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that overlap."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _choices(made: str, spans: Sequence[tuple[int, int]], ends: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield what became of each span. `ends` are the ends of replaced parts, before and after they were replaced."""

    def after(position: int) -> int:
        was, now = max(one for one in ends if one[0] <= position)
        return now + position - was

    for start, end in spans:
        yield made[after(start) : after(end)]
