"""Cuts a prompt into chunks of 75 tokens, the most that CLIP reads at once. Each token keeps its weight.

`chunked` cuts as A1111's web UI does, `split_at_sentences` as Compel does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sdrt.prompts.a1111 import Fragment

__all__ = ["Chunk", "Reader", "chunked", "split_at_sentences"]

_BACKTRACK = 20
"""The most tokens after the last comma that move to the next chunk with the rest of their phrase, as in A1111."""


class Reader(Protocol):
    """The part of a tokenizer that this module uses."""

    @property
    def room(self) -> int:
        """The most tokens that a chunk can hold."""

    def groups(self, text: str) -> Iterable[list[int]]:
        """Yield the token ids of a text in groups. The ids of a group must stay together."""

    def ends_word(self, token: int) -> bool:
        """Tell whether a token ends a word."""


@dataclass
class Chunk:
    """The tokens that CLIP reads at once, and the weight of each."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def chunked(stretches: Sequence[Sequence[Fragment]], reader: Reader) -> list[Chunk]:
    """Cut a prompt into chunks as A1111's web UI does. Return one empty chunk for an empty prompt.

    `stretches` are the fragments between two BREAKs; each stretch begins a new chunk. A BREAK at the end adds none. If
    the end of a chunk would cut a phrase, the whole phrase moves to the next chunk, unless its comma is too far back.
    """
    comma = next(iter(reader.groups(",")), [-1])[0]
    chunks = [chunk for fragments in stretches for chunk in _of_stretch(fragments, reader, comma)]
    if len(chunks) > 1 and not chunks[-1].tokens:
        del chunks[-1]
    return chunks or [Chunk()]


def _of_stretch(fragments: Sequence[Fragment], reader: Reader, comma: int) -> Iterator[Chunk]:
    chunk, after_comma = Chunk(), 0
    for fragment in fragments:
        for group in reader.groups(fragment.text):
            if len(chunk.tokens) + len(group) > reader.room:
                near = group != [comma] and after_comma > 0 and reader.room - after_comma < _BACKTRACK
                # The next chunk must have room for both the moved tokens and the group.
                near = near and len(chunk.tokens) - after_comma + len(group) <= reader.room
                kept = after_comma if near else len(chunk.tokens)
                yield Chunk(chunk.tokens[:kept], chunk.weights[:kept])
                chunk, after_comma = Chunk(chunk.tokens[kept:], chunk.weights[kept:]), 0
            chunk.tokens += group
            chunk.weights += [fragment.weight] * len(group)
            if group == [comma]:
                after_comma = len(chunk.tokens)
    # If the loop has yielded a chunk, this one has tokens.
    yield chunk


def split_at_sentences(fragments: Sequence[Fragment], reader: Reader) -> list[Chunk]:
    """Cut one text into at least one chunk, as Compel does (`SplitLongTextMode.SENTENCES`).

    Each chunk but the last ends at its last end of a sentence. If it has none, it ends at its last end of a phrase,
    otherwise at its last end of a word.
    """
    groups = [(ids, fragment.weight) for fragment in fragments for ids in reader.groups(fragment.text)]
    ends = _Ends(reader)
    chunks, start = [], 0
    while True:
        end = _fitting(groups, start, reader.room)
        if end < len(groups):
            # Counted downwards, because `max` returns the first of equal ranks: the last good place wins.
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
    """Return the index after the last group that fits into a chunk that begins at `start`."""
    for index in range(start, len(groups)):
        room -= len(groups[index][0])
        if room < 0:
            return index
    return len(groups)


class _Ends:
    """Ranks the places where a text may be cut."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._marks = {
            next(iter(reader.groups(mark)), [-1])[0]: rank
            for mark, rank in {".": 3, ",": 2, ";": 2, ":": 2}.items()
        }

    def rank(self, group: Sequence[int]) -> int:
        """Return what ends after a group of tokens: 3 for a sentence, 2 for a phrase, 1 for a word, 0 for nothing."""
        if len(group) > 1:
            return 1
        return self._marks.get(group[0]) or int(self._reader.ends_word(group[0]))
