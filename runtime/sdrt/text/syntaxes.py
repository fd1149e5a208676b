"""The ways in which prompts are read, a row each: adding one is adding a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sdrt.families import Encoded
from sdrt.prompts.a1111 import Part, parse_parts, parse_weights, scheduled
from sdrt.prompts.compel import parse_compel
from sdrt.text.compel_embeddings import embed, pooled
from sdrt.text.encoder import TextEncoder

__all__ = ["SYNTAXES", "Syntax"]


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """What is made of a prompt.

    Attributes:
        parts: of a text; each is a row of the batch, and they are added up behind the U-Net.
        scheduled: of a part and a number of steps: what it says in each of them.
        embed: of an encoder, what is said in a step, how many layers to skip, and what to call the text in notices.
        any_length: whether texts of several chunks are, so that all have to be as long as the longest.
    """

    parts: Callable[[str], list[Part]]
    scheduled: Callable[[str, int], list[str]]
    embed: Callable[[TextEncoder, str, int | None, str], Encoded]
    any_length: bool = True


def _whole(text: str) -> list[Part]:
    return [Part(text)]


def _unchanging(text: str, steps: int) -> list[str]:
    return [text] * steps


def _embed_a1111(encoder: TextEncoder, text: str, clip_skip: int | None, name: str) -> Encoded:
    return encoder.weighted(parse_weights(text), clip_skip)


def _embed_compel(encoder: TextEncoder, text: str, clip_skip: int | None, name: str) -> Encoded:
    clauses = parse_compel(text)
    embeds = embed(clauses, encoder, clip_skip)
    return Encoded(embeds=embeds, pooled=pooled(clauses, encoder) if encoder.pools else None)


def _embed_plain(encoder: TextEncoder, text: str, clip_skip: int | None, name: str) -> Encoded:
    return encoder.encode(text, clip_skip, name=name)


SYNTAXES: Mapping[str, Syntax] = {
    # A1111's grammar, and texts of any length.
    "a1111": Syntax(parts=parse_parts, scheduled=scheduled, embed=_embed_a1111),
    # Compel's, the same.
    "compel": Syntax(parts=_whole, scheduled=_unchanging, embed=_embed_compel),
    # Every character for itself, and diffusers' one chunk.
    "plain": Syntax(parts=_whole, scheduled=_unchanging, embed=_embed_plain, any_length=False),
}
