"""Computes the embeddings of Compel's weights, blends and conjunctions (`EmbeddingsProvider` in Compel 2).

A weight scales a token's distance from the empty prompt. If a fragment's weight is below 1, the embedding is also mixed
with that of the prompt without the fragment. Compel can leave a fragment out in two ways: it masks the tokens (its
default), or it removes them, so that later tokens move up (`DownweightMode.REMOVE`). The exported text encoders take no
mask, so this module removes them.
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

__all__ = ["embed"]

Array = NDArray[np.float32]
_LEAST = 1e-5
"""The least weight of a fragment. At 0 the formula would need the tangent of a right angle."""


class Encoder(Protocol):
    """The part of a text encoder that this module uses."""

    @property
    def tokenizer(self) -> Reader:
        """The tokenizer."""

    def chunk(self, tokens: Sequence[int], clip_skip: int | None = None) -> Encoded:
        """Encode at most `tokenizer.room` tokens to embeddings [length, width]."""


def embed(clauses: Sequence[Clause], encoder: Encoder, clip_skip: int | None = None) -> Array:
    """Encode a prompt of any length to embeddings [chunks · length, width]."""
    embeddings = _Embeddings(encoder, clip_skip)
    return np.concatenate([embeddings.of_clause(clause) for clause in clauses])


class _Embeddings:
    """Computes the embeddings of one prompt. Equal chunks are encoded once."""

    def __init__(self, encoder: Encoder, clip_skip: int | None) -> None:
        self._encoder, self._clip_skip = encoder, clip_skip
        self._encoded: dict[tuple[int, ...], Array] = {}

    def of_clause(self, clause: Clause) -> Array:
        """Mix the clause's texts by their shares, then apply the clause's weight to the result."""
        mixed = self._mixed([self._of_text(text) for text in clause.texts], clause.shares)
        return mixed if clause.weight == 1 else self._weighed(mixed, np.float32(clause.weight))

    def _of_text(self, fragments: Sequence[Fragment]) -> Array:
        """Encode a text with the weights of its fragments.

        For a fragment with a weight w < 1, one part of the text with it is mixed with tan((1 − w) · 90°) parts of the
        text without it: with none at a weight of 1, with one part at ½, and almost only with the text without it at 0.
        """
        texts, parts = [self._with_weights(fragments)], [1.0]
        for index, fragment in enumerate(fragments):
            if fragment.weight < 1:
                texts.append(self._with_weights([*fragments[:index], *fragments[index + 1 :]]))
                parts.append(math.tan((1 - max(_LEAST, fragment.weight)) * math.pi / 2))
        total = sum(parts)
        return self._mixed(texts, [part / total for part in parts])

    def _with_weights(self, fragments: Sequence[Fragment]) -> Array:
        """Encode the chunks of a text, with the weights of their tokens, and concatenate them."""
        return np.concatenate(
            [self._of_chunk(chunk) for chunk in split_at_sentences(fragments, self._encoder.tokenizer)]
        )

    def _of_chunk(self, chunk: Chunk) -> Array:
        embeds = self._encode(chunk.tokens)
        weights = np.ones((len(embeds), 1), np.float32)
        # Token 0 is the start token, which has no weight.
        weights[1 : 1 + len(chunk.weights), 0] = chunk.weights
        return np.where(weights == 1, embeds, self._weighed(embeds, weights))

    def _weighed(self, embeds: Array, weights: Array | np.float32) -> Array:
        empty = np.resize(self._encode(()), embeds.shape)
        weighed: Array = empty + (embeds - empty) * weights
        return weighed

    def _mixed(self, texts: Sequence[Array], shares: Sequence[float]) -> Array:
        """Add texts up by their shares. Shorter texts are padded with the empty prompt."""
        most = max(len(text) for text in texts)
        longest = [np.concatenate([text, self._of_empty(most - len(text))]) for text in texts]
        mixed: Array = np.einsum("n,nlw->lw", np.array(shares, np.float32), np.stack(longest))
        return mixed

    def _of_empty(self, length: int) -> Array:
        """Repeat the embeddings of the empty prompt up to `length` rows."""
        empty = self._encode(())
        return np.resize(empty, (length, empty.shape[1]))

    def _encode(self, tokens: Sequence[int]) -> Array:
        key = tuple(tokens)
        if key not in self._encoded:
            self._encoded[key] = self._encoder.chunk(tokens, self._clip_skip).embeds
        return self._encoded[key]
