"""The text embeddings that the denoiser gets in each step, and how guidance weights them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.families import Encoded, Family, RowConditions
from sdrt.prompts.a1111 import Part
from sdrt.request.fitted import FittedRequest
from sdrt.text.encoder import TextEncoder
from sdrt.text.syntaxes import SYNTAXES

__all__ = ["Conditioning"]

Array = NDArray[np.float32]
OpenTextEncoder = Callable[[int], TextEncoder]


@dataclass(frozen=True, kw_only=True)
class _ScheduledText:
    """The text of a prompt, or of a part of a prompt that AND joins. It may differ from step to step.

    Attributes:
        text_per_step: the text in each step.
        prompt_index: the index of the prompt.
        weight: the weight that the prompt gives the part.
    """

    text_per_step: Sequence[str]
    prompt_index: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """The embeddings of a scheduled text: one row of the batch for each image of the prompt.

    Attributes:
        encoded_per_step: the embeddings in each step.
        prompt_index: the index of the prompt.
        weight: the weight of the row's difference from the unconditional row.
    """

    encoded_per_step: Sequence[Encoded]
    prompt_index: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning:
    """The denoiser's inputs in each step of a run, except the latents and the timestep.

    Attributes:
        rows: the conditional rows: one per prompt, or one per part that AND joins.
        unconditional: the unconditional rows: one per prompt, or none without guidance.
        request: the request with the prompts.
        family: the model's family, which names the denoiser's inputs.
    """

    rows: Sequence[_Row]
    unconditional: Sequence[_Row]
    request: FittedRequest
    family: Family

    @classmethod
    def of(
        cls,
        request: FittedRequest,
        family: Family,
        text_encoder: OpenTextEncoder,
        words: Sequence[str] = (),
    ) -> Conditioning:
        """Encode the texts of a request. Equal texts are encoded once.

        Args:
            request: the request.
            family: the model's family.
            text_encoder: returns one of the family's text encoders by its number, counted from 0.
            words: the words of the loaded textual inversions.

        Raises:
            RequestError: a weight is out of bounds, or the given embeddings differ in length from the others.
        """
        positive = _scheduled_texts(request.prompts, request, words)
        composed = len(positive) > len(request.prompts) or any(part.weight != 1 for part in positive)
        # AND adds up differences from the unconditional row, so it needs that row whatever the guidance scale is.
        guided = request.guided or composed
        negative = _scheduled_texts(request.negative_prompts, request, words, negative=True) if guided else []
        if request.negative_prompt_embeds is not None:
            negative = []
        given = request.prompt_embeds, request.negative_prompt_embeds if guided else None
        encodings = _Encodings(request, family)
        # As in diffusers, clip_skip does not apply to the negative prompt.
        encodings.add("prompt", positive, request.clip_skip)
        encodings.add("negative prompt", negative, None)
        encodings.encode(text_encoder, max((half.shape[1] for half in given if half is not None), default=0))
        scale = request.outer_guidance_scale
        rows = [
            replace(row, weight=scale * row.weight) for row in encodings.rows("prompt", positive, given[0])
        ]
        unconditional = encodings.rows("negative prompt", negative, given[1])
        if guided and request.image_guidance_scale is not None:
            rows += _image_guidance_rows(rows, unconditional, request)
        conditioning = cls(rows=rows, unconditional=unconditional, request=request, family=family)
        conditioning.check_lengths()
        return conditioning

    def at(self, step: int) -> dict[str, NDArray[Any]]:
        """Return the inputs at a step, counted from 0, by name: each [batch, …], the unconditional half first."""
        spec = self.family.denoiser
        encoded = [row.encoded_per_step[step] for row in (*self.unconditional, *self.rows)]
        inputs: dict[str, NDArray[Any]] = {spec.embeds: self._batch([one.embeds for one in encoded])}
        for name, compute in spec.extra.items():
            inputs[name] = self._batch([compute(self._conditions(one)) for one in encoded])
        return inputs

    def _batch(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.repeat(np.stack(rows), self.repeats, axis=0)

    def _conditions(self, encoded: Encoded) -> RowConditions:
        request = self.request
        return RowConditions(
            pooled=encoded.pooled,
            height=request.height,
            width=request.width,
            guidance_scale=request.guidance_scale,
        )

    @property
    def repeats(self) -> int:
        """The number of images of each prompt."""
        return self.request.num_images_per_prompt

    @property
    def batch(self) -> int:
        """The number of rows of the batch."""
        return (len(self.unconditional) + len(self.rows)) * self.repeats

    def changes(self, before: int, step: int) -> bool:
        """Tell whether the embeddings at `step` differ from those at the step `before`."""
        return any(
            row.encoded_per_step[before] is not row.encoded_per_step[step]
            for row in (*self.unconditional, *self.rows)
        )

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional half."""
        return bool(self.unconditional)

    @property
    def image_indices(self) -> NDArray[np.intp]:
        """For each conditional row of the batch, the index of its image."""
        return np.array(
            [row.prompt_index * self.repeats + i for row in self.rows for i in range(self.repeats)], np.intp
        )

    @property
    def weights(self) -> Array | None:
        """For each conditional row of the batch, the weight of its difference; None without guidance."""
        if not self.guided:
            return None
        return np.repeat(np.array([row.weight for row in self.rows], np.float32), self.repeats)

    def repeat_for_batch(self, per_image: Array, *, zero_unconditional: bool) -> Array:
        """Turn an array with one row per image [N, …] into one with a row per row of the batch [batch, …].

        With `zero_unconditional`, the unconditional half is zeros.
        """
        conditional = per_image[self.image_indices]
        if not self.guided:
            return conditional
        return np.concatenate([np.zeros_like(per_image) if zero_unconditional else per_image, conditional])

    def check_lengths(self) -> None:
        """Raise `RequestError` if the embeddings of two rows differ in shape."""
        rows = (*self.unconditional, *self.rows)
        shapes = sorted({encoded.embeds.shape for row in rows for encoded in row.encoded_per_step})
        if len(shapes) > 1:
            raise RequestError.advised(
                "embeddings of the prompt and the negative prompt differ in shape: "
                f"{' and '.join(map(str, shapes))}",
                "give embeddings of the same length",
                argument="negative_prompt_embeds",
            )


def _image_guidance_rows(
    rows: Sequence[_Row], unconditional: Sequence[_Row], request: FittedRequest
) -> list[_Row]:
    """Return the rows for the image's own guidance. They have the input image and the negative prompt.

    InstructPix2Pix computes `scale · (text − image) + image_scale · (image − unconditional)`. In terms of differences
    from the unconditional row, the weight of the image's row is `image_scale` minus the weights of the texts.
    """
    assert request.image_guidance_scale is not None
    text_weights = [
        sum(row.weight for row in rows if row.prompt_index == other.prompt_index) for other in unconditional
    ]
    return [
        replace(row, weight=request.image_guidance_scale - text_weight)
        for row, text_weight in zip(unconditional, text_weights, strict=True)
    ]


def _scheduled_texts(
    prompts: Sequence[str], request: FittedRequest, words: Sequence[str], *, negative: bool = False
) -> list[_ScheduledText]:
    """Take out tags, then split prompts into the parts that AND joins. Negative prompts are not split."""
    syntax = SYNTAXES[request.prompt_syntax]
    texts = [syntax.without_tags(prompt, words) for prompt in prompts]
    return [
        _ScheduledText(
            text_per_step=syntax.scheduled(part.text, request.num_steps, request.steps_before),
            prompt_index=index,
            weight=part.weight,
        )
        for index, text in enumerate(texts)
        for part in ([Part(text)] if negative else syntax.parts(text))
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _OfEncoder:
    """What one text encoder made of the texts, and how many tokens its chunks have."""

    encoded: dict[tuple[str, str], Encoded]
    chunk_length: int


class _Encodings:
    """Encodes the texts of a request. Equal texts are encoded once."""

    def __init__(self, request: FittedRequest, family: Family) -> None:
        self._request, self._family = request, family
        self._syntax = SYNTAXES[request.prompt_syntax]
        self._skips: dict[str, int | None] = {}
        self._texts: list[tuple[str, str]] = []
        self._encoded: dict[tuple[str, str], Encoded] = {}

    def add(self, name: str, scheduled: Sequence[_ScheduledText], clip_skip: int | None) -> None:
        """Add texts to encode. `name` is what notices call the prompt, and the key for `rows`."""
        self._skips[name] = clip_skip
        self._texts += dict.fromkeys((name, text) for part in scheduled for text in part.text_per_step)

    def encode(self, text_encoder: OpenTextEncoder, min_length: int) -> None:
        """Encode the texts. Pad all to as many chunks as the longest one, and to at least `min_length` tokens.

        The text encoders run one after the other, because `low_vram` keeps only one in memory.
        """
        if not self._texts:
            return
        numbers = range(len(self._family.text_encoders))
        made = [self._encode_with(text_encoder(number)) for number in numbers]
        if self._syntax.any_length:
            # Tokenizers may split a text differently, but its embeddings are joined chunk by chunk.
            chunks = max(
                min_length // made[0].chunk_length,
                *(len(one.embeds) // part.chunk_length for part in made for one in part.encoded.values()),
            )
            for number in numbers:
                self._pad(made[number], chunks, lambda number=number: text_encoder(number))  # type: ignore[misc]
        self._encoded = {key: self._family.join([one.encoded[key] for one in made]) for key in self._texts}

    def _encode_with(self, encoder: TextEncoder) -> _OfEncoder:
        encoded = {
            (name, text): self._syntax.embed(encoder, text, self._skips[name], name)
            for name, text in self._texts
        }
        return _OfEncoder(encoded=encoded, chunk_length=encoder.tokenizer.length)

    def _pad(self, made: _OfEncoder, chunks: int, encoder: Callable[[], TextEncoder]) -> None:
        """Add chunks of the empty text. `encoder` is called only if a text is too short."""
        for key, one in made.encoded.items():
            missing = chunks - len(one.embeds) // made.chunk_length
            if missing > 0:
                empty = encoder().weighted([], self._skips[key[0]]).embeds
                made.encoded[key] = replace(one, embeds=np.concatenate([one.embeds, *[empty] * missing]))

    def rows(self, name: str, scheduled: Sequence[_ScheduledText], given: Array | None) -> list[_Row]:
        """Return the rows of the embeddings that the call gave, if any, otherwise of the `scheduled` texts."""
        if given is not None:
            steps = self._request.num_steps
            return [
                _Row(encoded_per_step=[Encoded(embeds=embeds)] * steps, prompt_index=index)
                for index, embeds in enumerate(given)
            ]
        return [
            _Row(
                encoded_per_step=[self._encoded[name, text] for text in part.text_per_step],
                prompt_index=part.prompt_index,
                weight=part.weight,
            )
            for part in scheduled
        ]
