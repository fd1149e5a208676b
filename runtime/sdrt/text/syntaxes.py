"""The table of prompt syntaxes. To add a syntax, add a row to `SYNTAXES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdrt.families import Encoded
from sdrt.prompts.a1111 import Part, parse_parts, parse_weights
from sdrt.prompts.compel import parse_compel
from sdrt.prompts.editing import scheduled
from sdrt.prompts.tags import without_tags
from sdrt.text.compel_embeddings import embed
from sdrt.text.encoder import TextEncoder

__all__ = ["SYNTAXES", "Syntax"]


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """How a prompt is read.

    Attributes:
        parts: splits a prompt into the parts that AND joins. Each part is a row of the batch, and guidance adds up the
            U-Net's outputs for them.
        scheduled: takes a part, the number of steps, and that of the pass before it, if any; returns the part's text in
            each step.
        embed: takes a text encoder, a text, `clip_skip` and the prompt's name in notices; returns the embeddings.
        any_length: whether a prompt may have several chunks. If so, shorter prompts are padded to the longest.
        has_tags: whether tags such as ``<lora:name>`` are taken out before the prompt is read.
    """

    parts: Callable[[str], list[Part]]
    scheduled: Callable[[str, int, int], list[str]]
    embed: Callable[[TextEncoder, str, int | None, str], Encoded]
    any_length: bool = True
    has_tags: bool = True

    def without_tags(self, text: str, words: Sequence[str] = ()) -> str:
        """Return a prompt without its tags. `words` are those of the loaded textual inversions."""
        return without_tags(text, words) if self.has_tags else text


def _whole(text: str) -> list[Part]:
    return [Part(text)]


def _unchanging(text: str, steps: int, steps_before: int) -> list[str]:
    return [text] * steps


def _embed_a1111(encoder: TextEncoder, text: str, clip_skip: int | None, name: str) -> Encoded:
    return encoder.weighted(parse_weights(text), clip_skip)


def _embed_compel(encoder: TextEncoder, text: str, clip_skip: int | None, name: str) -> Encoded:
    clauses = parse_compel(text)
    embeds = embed(clauses, encoder, clip_skip)
    # As in Compel, the pooled embedding is that of the text as it is written, with its signs, up to one chunk.
    return Encoded(embeds=embeds, pooled=encoder.pooled(text))


def _embed_plain(encoder: TextEncoder, text: str, clip_skip: int | None, name: str) -> Encoded:
    return encoder.encode(text, clip_skip, name=name)


SYNTAXES: Mapping[str, Syntax] = {
    # The grammar of A1111's web UI; prompts of any length.
    "a1111": Syntax(parts=parse_parts, scheduled=scheduled, embed=_embed_a1111),
    # Compel's grammar; prompts of any length.
    "compel": Syntax(parts=_whole, scheduled=_unchanging, embed=_embed_compel),
    # No grammar, and only one chunk, as in diffusers.
    "plain": Syntax(
        parts=_whole, scheduled=_unchanging, embed=_embed_plain, any_length=False, has_tags=False
    ),
}
