"""The text embeddings that the denoiser gets in each step, and how guidance weights them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.families import Encoded, Family, RowConditions
from sdrt.request.fitted import FittedRequest
from sdrt.request.size_conditions import SizeConditions
from sdrt.run.encodings import Encodings, OpenTextEncoder, Row, scheduled_texts

__all__ = ["Conditioning"]

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning:
    """The denoiser's inputs in each step of a run, except the latents and the timestep.

    Attributes:
        rows: the conditional rows: one per prompt, or one per part that AND joins.
        unconditional: the unconditional rows: one per prompt, or none without guidance.
        request: the request with the prompts.
        family: the model's family, which names the denoiser's inputs.
        image_tokens: the tokens of image prompts [batch, length, width], by the names of the denoiser's inputs.
        guides: whether the request's guidance scales count. Outside the guidance interval, they are 1.
    """

    rows: Sequence[Row]
    unconditional: Sequence[Row]
    request: FittedRequest
    family: Family
    image_tokens: Mapping[str, Array] = field(default_factory=dict)
    guides: bool = True

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
        positive = scheduled_texts(request, family, words)
        composed = len(positive) > len(request.prompts) or any(part.weight != 1 for part in positive)
        # AND adds up differences from the unconditional row, so it needs that row with every guidance scale.
        guided = request.guided or composed
        encoded = guided and request.negative_prompt_embeds is None and not request.zero_negative
        negative = scheduled_texts(request, family, words, negative=True) if encoded else []
        given = request.prompt_embeds, request.negative_prompt_embeds if guided else None
        encodings = Encodings(request, family)
        # As in diffusers, clip_skip does not apply to the negative prompt.
        encodings.add("prompt", positive, request.clip_skip)
        encodings.add("negative prompt", negative, None)
        encodings.encode(text_encoder, max((half.shape[1] for half in given if half is not None), default=0))
        pooled = request.pooled_prompt_embeds, request.negative_pooled_prompt_embeds
        rows = encodings.rows("prompt", positive, given[0], pooled[0])
        unconditional = encodings.rows("negative prompt", negative, given[1], pooled[1])
        if guided and request.zero_negative:
            unconditional = _zero_rows(rows, request)
        if guided and request.image_guidance_scale is not None:
            # With the input image and the negative prompt, they are what gives the image a guidance of its own.
            rows = [*rows, *unconditional]
        conditioning = cls(rows=rows, unconditional=unconditional, request=request, family=family)
        conditioning.check_lengths()
        return conditioning

    def at(self, step: int) -> dict[str, NDArray[Any]]:
        """Return the inputs at a step, counted from 0, by name: each [batch, …], the unconditional half first."""
        spec = self.family.denoiser
        encoded = [row.encoded_per_step[step] for row in (*self.unconditional, *self.rows)]
        inputs: dict[str, NDArray[Any]] = {spec.embeds: self._batch([one.embeds for one in encoded])}
        told = [self._conditions(one, index < len(self.unconditional)) for index, one in enumerate(encoded)]
        for name, compute in spec.extra.items():
            inputs[name] = self._batch([compute(one) for one in told])
        return {**inputs, **self.image_tokens}

    def _batch(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.repeat(np.stack(rows), self.repeats, axis=0)

    def _conditions(self, encoded: Encoded, negative: bool) -> RowConditions:
        request = self.request
        sizes = SizeConditions.of(request, negative=negative)
        return RowConditions(
            pooled=encoded.pooled,
            height=request.height,
            width=request.width,
            guidance_scale=request.guidance_scale,
            original_size=sizes.original_size,
            crop=sizes.crop,
            target_size=sizes.target_size,
            aesthetic_score=sizes.aesthetic_score,
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
    def num_texts(self) -> int:
        """The number of conditional rows of the batch for texts. Those for the image's own guidance follow them."""
        return len(self._texts) * self.repeats

    @property
    def _texts(self) -> Sequence[Row]:
        """The conditional rows for texts. Those for the image's own guidance follow them."""
        image_rows = len(self.unconditional) if self.request.image_guidance_scale is not None else 0
        return self.rows[: len(self.rows) - image_rows]

    @property
    def weights(self) -> Array | None:
        """For each conditional row of the batch, the weight of its difference; None without guidance.

        InstructPix2Pix computes `scale · (text - image) + image_scale · (image - unconditional)`. In terms of
        differences from the unconditional row, the image's row has the weight `image_scale` minus those of the texts.
        """
        if not self.guided:
            return None
        texts = self._texts
        weights = [self.scale * row.weight for row in texts]
        weights += [
            self._image_scale
            - sum(w for row, w in zip(texts, weights, strict=False) if row.prompt_index == index)
            for index in (row.prompt_index for row in self.rows[len(texts) :])
        ]
        return np.repeat(np.array(weights, np.float32), self.repeats)

    @property
    def scale(self) -> float:
        """The guidance scale between the unconditional and the conditional half."""
        return self.request.outer_guidance_scale if self.guides else 1.0

    @property
    def _image_scale(self) -> float:
        given = self.request.image_guidance_scale
        return 1.0 if given is None or not self.guides else given

    @property
    def _rows_of_texts(self) -> slice:
        """The rows of the batch that are for texts, without the negative prompts."""
        first = len(self.unconditional) * self.repeats
        return slice(first, first + self.num_texts)

    def outside_interval(self) -> tuple[Conditioning, slice]:
        """The conditioning of the steps that are not guided, and which of these rows it has.

        At a guidance scale of 1, a prompt's own row is the result. AND adds up differences from the unconditional row,
        so with AND every row stays.
        """
        if len(self._texts) > self.request.num_prompts or any(row.weight != 1 for row in self._texts):
            return replace(self, guides=False), slice(None)
        part = self._rows_of_texts
        tokens = {name: array[part] for name, array in self.image_tokens.items()}
        alone = replace(self, rows=self._texts, unconditional=(), image_tokens=tokens, guides=False)
        return alone, part

    def repeat_for_batch(self, per_image: NDArray[Any], *, zero_unconditional: bool) -> NDArray[Any]:
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


def _zero_rows(rows: Sequence[Row], request: FittedRequest) -> list[Row]:
    """Return unconditional rows of zeros, one for each prompt."""
    like = rows[0].encoded_per_step[0]
    pooled = None if like.pooled is None else np.zeros_like(like.pooled)
    zeros = [Encoded(embeds=np.zeros_like(like.embeds), pooled=pooled)] * request.num_steps
    return [Row(encoded_per_step=zeros, prompt_index=index) for index in range(request.num_prompts)]
