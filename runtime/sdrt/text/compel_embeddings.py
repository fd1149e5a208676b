"""What Compel's weights, blends and conjunctions are as embeddings (Compel 2, its `EmbeddingsProvider`).

Weights are distances from the empty prompt, token by token. What counts less than 1 is mixed, besides, with the prompt
that lacks it. Compel knows two ways to leave it out: to mask it, its default, and to remove its tokens, so that those
behind move up (`DownweightMode.REMOVE`). The exported text encoders take no mask: it is the second one here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdrt.families import Encoded
from sdrt.prompts.a1111 import Fragment
from sdrt.prompts.compel import Clause
from sdrt.text.chunks import Chunk, Reader, split_at_sentences

__all__ = ["embed", "pooled"]

Array = NDArray[np.float32]
_LEAST = 1e-5
"""Weight below which a fragment counts as this: the tangent of a right angle is no number."""


class Encoder(Protocol):
    """What a text encoder has to be able to do."""

    @property
    def tokenizer(self) -> Reader:
        """What makes tokens of a text."""

    def chunk(self, tokens: Sequence[int], clip_skip: int | None = None) -> Encoded:
        """Embeddings [length, width] of at most as many tokens as there is room for."""


def embed(clauses: Sequence[Clause], encoder: Encoder, clip_skip: int | None = None) -> Array:
    """Embeddings [chunks · length, width] of a prompt of any length."""
    embeddings = _Embeddings(encoder, clip_skip)
    return np.concatenate([embeddings.of_clause(clause) for clause in clauses])


def pooled(clauses: Sequence[Clause], encoder: Encoder) -> Array | None:
    """The pooled embedding of the first text's first chunk, without weights; None if the encoder makes none."""
    fragments = [fragment for clause in clauses[:1] for fragment in clause.texts[0]]
    return encoder.chunk(split_at_sentences(fragments, encoder.tokenizer)[0].tokens).pooled


class _Embeddings:
    """Embeddings of one prompt's parts, in which equal chunks are encoded once."""

    def __init__(self, encoder: Encoder, clip_skip: int | None) -> None:
        self._encoder, self._clip_skip = encoder, clip_skip
        self._encoded: dict[tuple[int, ...], Array] = {}

    def of_clause(self, clause: Clause) -> Array:
        """Texts mixed by their shares, at the clause's distance from the empty prompt."""
        mixed = self._mixed([self._of_text(text) for text in clause.texts], clause.shares)
        return mixed if clause.weight == 1 else self._weighed(mixed, np.float32(clause.weight))

    def _of_text(self, fragments: Sequence[Fragment]) -> Array:
        """A text with each fragment as it counts.

        Of one that counts w < 1, tan((1 − w) · 90°) parts of the text without it go to one part of the text with it:
        none at 1, as many at ½, nothing else at 0.
        """
        texts, parts = [self._with_weights(fragments)], [1.0]
        for index, fragment in enumerate(fragments):
            if fragment.weight < 1:
                texts.append(self._with_weights([*fragments[:index], *fragments[index + 1 :]]))
                parts.append(math.tan((1 - max(_LEAST, fragment.weight)) * math.pi / 2))
        total = sum(parts)
        return self._mixed(texts, [part / total for part in parts])

    def _with_weights(self, fragments: Sequence[Fragment]) -> Array:
        """Chunks one after another, each token at its distance from the empty prompt's."""
        return np.concatenate(
            [self._of_chunk(chunk) for chunk in split_at_sentences(fragments, self._encoder.tokenizer)]
        )

    def _of_chunk(self, chunk: Chunk) -> Array:
        embeds = self._encode(chunk.tokens)
        weights = np.ones((len(embeds), 1), np.float32)
        # The first token begins the text.
        weights[1 : 1 + len(chunk.weights), 0] = chunk.weights
        return np.where(weights == 1, embeds, self._weighed(embeds, weights))

    def _weighed(self, embeds: Array, weights: Array | np.float32) -> Array:
        empty = np.resize(self._encode(()), embeds.shape)
        weighed: Array = empty + (embeds - empty) * weights
        return weighed

    def _mixed(self, texts: Sequence[Array], shares: Sequence[float]) -> Array:
        """The sum of texts by their shares; shorter ones go on with the empty prompt."""
        most = max(len(text) for text in texts)
        longest = [np.concatenate([text, self._of_empty(most - len(text))]) for text in texts]
        mixed: Array = np.einsum("n,nlw->lw", np.array(shares, np.float32), np.stack(longest))
        return mixed

    def _of_empty(self, length: int) -> Array:
        """The empty prompt, again and again."""
        empty = self._encode(())
        return np.resize(empty, (length, empty.shape[1]))

    def _encode(self, tokens: Sequence[int]) -> Array:
        key = tuple(tokens)
        if key not in self._encoded:
            self._encoded[key] = self._encoder.chunk(tokens, self._clip_skip).embeds
        return self._encoded[key]
