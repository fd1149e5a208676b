"""Encodes the texts of a request with every text encoder of a model, each text once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.families import Encoded, Family
from sdrt.prompts.a1111 import Part
from sdrt.request.fitted import FittedRequest
from sdrt.text.encoder import TextEncoder
from sdrt.text.syntaxes import SYNTAXES, Syntax

__all__ = ["Encodings", "OpenTextEncoder", "Row", "ScheduledText", "scheduled_texts"]

Array = NDArray[np.float32]
OpenTextEncoder = Callable[[int], TextEncoder]
Texts = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ScheduledText:
    """The text of a prompt, or of a part of a prompt that AND joins. It may differ from step to step.

    Attributes:
        texts_per_step: the texts in each step, one for each text encoder.
        prompt_index: the index of the prompt.
        weight: the weight that the prompt gives the part.
    """

    texts_per_step: Sequence[Texts]
    prompt_index: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """The embeddings of a scheduled text: one row of the batch for each image of the prompt.

    Attributes:
        encoded_per_step: the embeddings in each step.
        prompt_index: the index of the prompt.
        weight: the weight of the row's difference from the unconditional row.
    """

    encoded_per_step: Sequence[Encoded]
    prompt_index: int
    weight: float = 1.0


def scheduled_texts(
    request: FittedRequest, family: Family, words: Sequence[str], *, negative: bool = False
) -> list[ScheduledText]:
    """Take out tags, then split prompts into the parts that AND joins. Negative prompts are not split.

    Raises:
        RequestError: the texts for two text encoders have different numbers of parts.
    """
    syntax = SYNTAXES[request.prompt_syntax]
    columns = _columns(request, len(family.text_encoders), negative=negative)
    found = []
    for index, texts in enumerate(zip(*columns, strict=True)):
        plain = [syntax.without_tags(text, words) for text in texts]
        parts = [[Part(text)] if negative else syntax.parts(text) for text in plain]
        for together in _joined(parts):
            scheduled = [
                syntax.scheduled(part.text, request.num_steps, request.steps_before) for part in together
            ]
            found.append(
                ScheduledText(
                    texts_per_step=list(zip(*scheduled, strict=True)),
                    prompt_index=index,
                    weight=together[0].weight,
                )
            )
    return found


def _columns(request: FittedRequest, encoders: int, *, negative: bool) -> list[list[str]]:
    """The texts of the prompts for each text encoder. The second one may have its own."""
    first = request.negative_prompts if negative else request.prompts
    second = request.negative_prompts_2 if negative else request.prompts_2
    return [first, *[second if first else []] * (encoders - 1)]


def _joined(parts: Sequence[Sequence[Part]]) -> list[tuple[Part, ...]]:
    """Put the parts for each text encoder together. A text without AND goes with every part of the other."""
    count = max(map(len, parts))
    if any(len(one) not in (1, count) for one in parts):
        counts = " and ".join(str(len(one)) for one in parts)
        raise RequestError.advised(
            f"AND joins {counts} parts in prompt and prompt_2",
            "give prompt_2 as many parts, or one",
            joint="; ",
            argument="prompt_2",
        )
    return list(zip(*(one if len(one) == count else list(one) * count for one in parts), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class _OfEncoder:
    """One text encoder's embeddings of the texts, and the number of tokens in its chunks."""

    encoded: dict[tuple[str, str], Encoded]
    chunk_length: int


class Encodings:
    """Encodes the texts of a request. Equal texts are encoded once."""

    def __init__(self, request: FittedRequest, family: Family) -> None:
        self._request, self._family = request, family
        self._syntax: Syntax = SYNTAXES[request.prompt_syntax]
        self._skips: dict[str, int | None] = {}
        self._texts: list[tuple[str, Texts]] = []
        self._encoded: dict[tuple[str, Texts], Encoded] = {}

    def add(self, name: str, scheduled: Sequence[ScheduledText], clip_skip: int | None) -> None:
        """Add texts to encode. `name` is the prompt's name in notices, and the key for `rows`."""
        self._skips[name] = clip_skip
        self._texts += dict.fromkeys((name, texts) for part in scheduled for texts in part.texts_per_step)

    def encode(self, text_encoder: OpenTextEncoder, min_length: int) -> None:
        """Encode the texts. Pad all to as many chunks as the longest one, and to at least `min_length` tokens.

        The text encoders run one after the other, because `low_vram` keeps only one in memory.
        """
        if not self._texts:
            return
        numbers = range(len(self._family.text_encoders))
        made = [self._encode_with(text_encoder(number), number) for number in numbers]
        if self._syntax.any_length:
            # Tokenizers may split a text differently, but its embeddings are joined chunk by chunk.
            chunks = max(
                min_length // made[0].chunk_length,
                *(len(one.embeds) // part.chunk_length for part in made for one in part.encoded.values()),
            )
            for number in numbers:
                self._pad(made[number], chunks, lambda number=number: text_encoder(number))  # type: ignore[misc]
        self._encoded = {
            (name, texts): self._family.join(
                [one.encoded[name, text] for one, text in zip(made, texts, strict=True)]
            )
            for name, texts in self._texts
        }

    def _encode_with(self, encoder: TextEncoder, number: int) -> _OfEncoder:
        wanted = dict.fromkeys((name, texts[number]) for name, texts in self._texts)
        encoded = {
            (name, text): self._syntax.embed(encoder, text, self._skips[name], name) for name, text in wanted
        }
        return _OfEncoder(encoded=encoded, chunk_length=encoder.tokenizer.length)

    def _pad(self, made: _OfEncoder, chunks: int, encoder: Callable[[], TextEncoder]) -> None:
        """Add chunks of the empty text. `encoder` is called only if a text is too short."""
        for key, one in made.encoded.items():
            missing = chunks - len(one.embeds) // made.chunk_length
            if missing > 0:
                empty = encoder().weighted([], self._skips[key[0]]).embeds
                made.encoded[key] = replace(one, embeds=np.concatenate([one.embeds, *[empty] * missing]))

    def rows(
        self, name: str, scheduled: Sequence[ScheduledText], given: Array | None, pooled: Array | None = None
    ) -> list[Row]:
        """Return the rows of the embeddings that the call gave, if any, otherwise of the `scheduled` texts.

        `pooled` [prompts, width] replaces the pooled embeddings, if the call gave them.
        """
        if given is not None:
            steps = self._request.num_steps
            rows = [
                Row(encoded_per_step=[Encoded(embeds=embeds)] * steps, prompt_index=index)
                for index, embeds in enumerate(given)
            ]
        else:
            rows = [
                Row(
                    encoded_per_step=[self._encoded[name, texts] for texts in part.texts_per_step],
                    prompt_index=part.prompt_index,
                    weight=part.weight,
                )
                for part in scheduled
            ]
        return rows if pooled is None else [_with_pooled(row, pooled[row.prompt_index]) for row in rows]


def _with_pooled(row: Row, pooled: Array) -> Row:
    # Steps that shared their embeddings still do, because a change of embeddings ends a callback's changes.
    changed = {id(one): replace(one, pooled=pooled) for one in row.encoded_per_step}
    return replace(row, encoded_per_step=[changed[id(one)] for one in row.encoded_per_step])
