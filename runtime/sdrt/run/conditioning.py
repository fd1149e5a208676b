"""What the denoiser is told of the prompts, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
class _Line:
    """One prompt, or one part of a prompt that AND puts together: its text in every step."""

    of_step: Sequence[str]
    owner: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """A line as the denoiser takes it."""

    of_step: Sequence[Encoded]
    owner: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning:
    """What a run's denoiser is told, besides the latents and the timestep.

    Attributes:
        rows: the conditional ones, one for each prompt, or for each part that AND puts together.
        unconditional: one for each prompt, or none where there is no guidance.
        request: what they belong to.
        family: names the denoiser's inputs.
    """

    rows: Sequence[_Row]
    unconditional: Sequence[_Row]
    request: FittedRequest
    family: Family

    @classmethod
    def of(cls, request: FittedRequest, family: Family, text_encoder: OpenTextEncoder) -> Conditioning:
        """Encode the texts of a request, each once; `text_encoder` opens one of the family's, by its number.

        Raises:
            RequestError: weights are out of bounds, or embeddings that were given differ in length from the others.
        """
        lines = _lines(request.prompts, request)
        composed = len(lines) > len(request.prompts) or any(line.weight != 1 for line in lines)
        # What AND puts together are differences from the unconditional half, whatever the guidance's scale.
        guided = request.guided or composed
        negative = _lines(request.negative_prompts, request, negative=True) if guided else []
        if request.negative_prompt_embeds is not None:
            negative = []
        given = request.prompt_embeds, request.negative_prompt_embeds if guided else None
        texts = _Texts(request, family)
        # diffusers skips no layers for the negative prompt.
        texts.add("prompt", lines, request.clip_skip)
        texts.add("negative prompt", negative, None)
        texts.encode(text_encoder, max((half.shape[1] for half in given if half is not None), default=0))
        scale = request.guidance_scale
        rows = [replace(row, weight=scale * row.weight) for row in texts.rows("prompt", lines, given[0])]
        unconditional = texts.rows("negative prompt", negative, given[1])
        if guided and request.image_guidance_scale is not None:
            rows += _of_images(rows, unconditional, request)
        conditioning = cls(rows=rows, unconditional=unconditional, request=request, family=family)
        conditioning.check_lengths()
        return conditioning

    def at(self, step: int) -> dict[str, NDArray[Any]]:
        """The denoiser's inputs at a step, counted from 0: each [batch, …], the unconditional half first."""
        spec = self.family.denoiser
        encoded = [row.of_step[step] for row in (*self.unconditional, *self.rows)]
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
        """How many images each prompt has."""
        return self.request.num_images_per_prompt

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return (len(self.unconditional) + len(self.rows)) * self.repeats

    def changes(self, before: int, step: int) -> bool:
        """Whether a step has other embeddings than one before it."""
        return any(row.of_step[before] is not row.of_step[step] for row in (*self.unconditional, *self.rows))

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional half."""
        return bool(self.unconditional)

    @property
    def owners(self) -> NDArray[np.intp]:
        """Of each conditional row of the batch, which image it is of."""
        return np.array(
            [row.owner * self.repeats + i for row in self.rows for i in range(self.repeats)], np.intp
        )

    @property
    def weights(self) -> Array | None:
        """Of each conditional row of the batch, how much its difference counts; None without guidance."""
        if not self.guided:
            return None
        return np.repeat(np.array([row.weight for row in self.rows], np.float32), self.repeats)

    def over_batch(self, images: Array, *, blank: bool) -> Array:
        """Rows of the batch [batch, …], of one for each image; zeros in the unconditional half if `blank`."""
        conditional = images[self.owners]
        if not self.guided:
            return conditional
        return np.concatenate([np.zeros_like(images) if blank else images, conditional])

    def check_lengths(self) -> None:
        """Raise `RequestError` where rows differ in length."""
        rows = (*self.unconditional, *self.rows)
        shapes = sorted({encoded.embeds.shape for row in rows for encoded in row.of_step})
        if len(shapes) > 1:
            raise RequestError(
                f"embeddings of the negative and the positive prompt differ in shape: {' and '.join(map(str, shapes))}"
            )


def _of_images(rows: Sequence[_Row], unconditional: Sequence[_Row], request: FittedRequest) -> list[_Row]:
    """Rows that see the image and the negative prompt, which the image's own guidance needs.

    InstructPix2Pix adds up `scale · (text − image) + image_scale · (image − unconditional)`; as differences from the
    unconditional row, the image's has a weight of `image_scale` less those of the texts.
    """
    assert request.image_guidance_scale is not None
    of_text = [sum(row.weight for row in rows if row.owner == other.owner) for other in unconditional]
    return [
        replace(row, weight=request.image_guidance_scale - text)
        for row, text in zip(unconditional, of_text, strict=True)
    ]


def _lines(prompts: Sequence[str], request: FittedRequest, *, negative: bool = False) -> list[_Line]:
    """Prompts in their parts, of which a negative prompt has none."""
    syntax = SYNTAXES[request.prompt_syntax]
    return [
        _Line(of_step=syntax.scheduled(part.text, request.num_steps), owner=owner, weight=part.weight)
        for owner, text in enumerate(prompts)
        for part in ([Part(text)] if negative else syntax.parts(text))
    ]


class _Texts:
    """Texts and what the text encoders make of them; equal texts are encoded once."""

    def __init__(self, request: FittedRequest, family: Family) -> None:
        self._request, self._family = request, family
        self._syntax = SYNTAXES[request.prompt_syntax]
        self._skips: dict[str, int | None] = {}
        self._texts: list[tuple[str, str]] = []
        self._encoded: dict[tuple[str, str], Encoded] = {}

    def add(self, name: str, lines: Sequence[_Line], clip_skip: int | None) -> None:
        """Encode what `lines` say too; `name` is for notices, and for `rows`."""
        self._skips[name] = clip_skip
        self._texts += dict.fromkeys((name, text) for line in lines for text in line.of_step)

    def encode(self, text_encoder: OpenTextEncoder, least: int) -> None:
        """Encode the texts, all as long as the longest, or as `least` tokens.

        One text encoder after another, as with little memory there is one at a time.
        """
        if not self._texts:
            return
        made = [
            self._of_encoder(text_encoder(number), least) for number in range(len(self._family.text_encoders))
        ]
        self._encoded = {key: self._family.join([one[key] for one in made]) for key in self._texts}

    def _of_encoder(self, encoder: TextEncoder, least: int) -> Mapping[tuple[str, str], Encoded]:
        encoded = {
            (name, text): self._syntax.embed(encoder, text, self._skips[name], name)
            for name, text in self._texts
        }
        if not self._syntax.any_length:
            return encoded
        most = max(least, *(len(one.embeds) for one in encoded.values()))
        for key, one in encoded.items():
            if len(one.embeds) < most:
                empty = encoder.weighted([], self._skips[key[0]]).embeds
                chunks = (most - len(one.embeds)) // len(empty)
                encoded[key] = replace(one, embeds=np.concatenate([one.embeds, *[empty] * chunks]))
        return encoded

    def rows(self, name: str, lines: Sequence[_Line], given: Array | None) -> list[_Row]:
        """Embeddings that were given, or those of `lines`."""
        if given is not None:
            steps = self._request.num_steps
            return [
                _Row(of_step=[Encoded(embeds=embeds)] * steps, owner=owner)
                for owner, embeds in enumerate(given)
            ]
        return [
            _Row(
                of_step=[self._encoded[name, text] for text in line.of_step],
                owner=line.owner,
                weight=line.weight,
            )
            for line in lines
        ]
