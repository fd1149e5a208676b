"""From a prompt's fragments to what CLIP reads at a time: chunks of 75 tokens, each token with its weight.

Where a chunk ends, A1111's web UI (`chunked`) and Compel (`split_at_sentences`) each have a rule of their own for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sdrt.prompts.a1111 import Fragment

__all__ = ["Chunk", "Reader", "chunked", "split_at_sentences"]

_BACKTRACK = 20
"""Tokens after the last comma that may move to the next chunk with what follows them, as in A1111's web UI."""


class Reader(Protocol):
    """What a tokenizer has to be able to do."""

    @property
    def room(self) -> int:
        """Tokens of a chunk."""

    def groups(self, text: str) -> Iterable[list[int]]:
        """Ids of a text; those that must stay together in one group."""

    def ends_word(self, token: int) -> bool:
        """Whether a word ends with a token."""


@dataclass
class Chunk:
    """At most as many tokens as there is room for, and the weight of each."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def chunked(stretches: Sequence[Sequence[Fragment]], reader: Reader) -> list[Chunk]:
    """Chunks of all stretches, each of which begins a new one; one empty chunk where there are no words at all.

    A phrase that a chunk's end would cut moves on whole, if its comma is not far.
    """
    comma = next(iter(reader.groups(",")), [-1])[0]
    chunks = [chunk for fragments in stretches for chunk in _of_stretch(fragments, reader, comma)]
    return chunks or [Chunk()]


def _of_stretch(fragments: Sequence[Fragment], reader: Reader, comma: int) -> Iterator[Chunk]:
    chunk, after_comma = Chunk(), 0
    for fragment in fragments:
        for group in reader.groups(fragment.text):
            if len(chunk.tokens) + len(group) > reader.room:
                near = group != [comma] and after_comma > 0 and reader.room - after_comma < _BACKTRACK
                # With what moves on, a group that stays together may not fit either.
                near = near and len(chunk.tokens) - after_comma + len(group) <= reader.room
                kept = after_comma if near else len(chunk.tokens)
                yield Chunk(chunk.tokens[:kept], chunk.weights[:kept])
                chunk, after_comma = Chunk(chunk.tokens[kept:], chunk.weights[kept:]), 0
            chunk.tokens += group
            chunk.weights += [fragment.weight] * len(group)
            if group == [comma]:
                after_comma = len(chunk.tokens)
    if chunk.tokens or not fragments:
        yield chunk


def split_at_sentences(fragments: Sequence[Fragment], reader: Reader) -> list[Chunk]:
    """Chunks of one text, at least one, as Compel cuts it (`SplitLongTextMode.SENTENCES`).

    One that the text goes on after ends with its last sentence; if it has no end of one, with its last phrase, else
    with its last word.
    """
    groups = [(ids, fragment.weight) for fragment in fragments for ids in reader.groups(fragment.text)]
    ends = _Ends(reader)
    chunks, start = [], 0
    while True:
        end = _fitting(groups, start, reader.room)
        if end < len(groups):
            # The last of the best: `max` takes the first of equals.
            end = max(
                range(end, start, -1), key=lambda behind: ends.rank(groups[behind - 1][0]), default=start + 1
            )
        chunk = Chunk()
        for ids, weight in groups[start:end]:
            chunk.tokens += ids
            chunk.weights += [weight] * len(ids)
        chunks.append(chunk)
        start = end
        if start >= len(groups):
            return chunks


def _fitting(groups: Sequence[tuple[list[int], float]], start: int, room: int) -> int:
    """Behind the last group that fits into a chunk that begins at `start`."""
    for index in range(start, len(groups)):
        room -= len(groups[index][0])
        if room < 0:
            return index
    return len(groups)


class _Ends:
    """How good a place to cut a text is behind a group of tokens."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._marks = {
            next(iter(reader.groups(mark)), [-1])[0]: rank
            for mark, rank in {".": 3, ",": 2, ";": 2, ":": 2}.items()
        }

    def rank(self, group: Sequence[int]) -> int:
        """3 for a sentence, 2 for a phrase, 1 for a word, 0 within one."""
        if len(group) > 1:
            return 1
        return self._marks.get(group[0]) or int(self._reader.ends_word(group[0]))
