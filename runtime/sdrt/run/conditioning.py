"""What the U-Net is told of the prompts, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.prompts.a1111 import Part
from sdrt.request.fitted import FittedRequest
from sdrt.text.encoder import TextEncoder
from sdrt.text.syntaxes import SYNTAXES

__all__ = ["Conditioning"]

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One prompt, or one part of a prompt that AND puts together: its text in every step."""

    of_step: Sequence[str]
    owner: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """A line in embeddings [length, width]."""

    of_step: Sequence[Array]
    owner: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning:
    """Text embeddings of a run.

    Attributes:
        rows: the conditional ones, one for each prompt, or for each part that AND puts together.
        unconditional: one for each prompt, or none where there is no guidance.
        repeats: how many pictures each prompt has.
        scale: of guidance, which is in the rows' weights already.
    """

    rows: Sequence[_Row]
    unconditional: Sequence[_Row]
    repeats: int
    scale: float

    @classmethod
    def of(cls, request: FittedRequest, text_encoder: Callable[[], TextEncoder]) -> Conditioning:
        """Encode the texts of a request, each once; `text_encoder` is asked for where there are any.

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
        texts = _Texts(request, text_encoder)
        texts.read("prompt", lines, request.clip_skip)
        # diffusers skips no layers for the negative prompt.
        texts.read("negative prompt", negative, None)
        texts.lengthen(max((half.shape[1] for half in given if half is not None), default=0))
        scale = request.guidance_scale
        rows = [replace(row, weight=scale * row.weight) for row in texts.rows("prompt", lines, given[0])]
        unconditional = texts.rows("negative prompt", negative, given[1])
        if guided and request.image_guidance_scale is not None:
            rows += _of_pictures(rows, unconditional, request)
        conditioning = cls(
            rows=rows,
            unconditional=unconditional,
            repeats=request.num_images_per_prompt,
            scale=scale,
        )
        conditioning.check_lengths()
        return conditioning

    def at(self, step: int) -> Array:
        """Embeddings [batch, length, width] of a step, counted from 0; the unconditional half first."""
        rows = [row.of_step[step] for row in (*self.unconditional, *self.rows)]
        return np.repeat(np.stack(rows), self.repeats, axis=0)

    def changes(self, before: int, step: int) -> bool:
        """Whether a step has other embeddings than one before it."""
        return any(row.of_step[before] is not row.of_step[step] for row in (*self.unconditional, *self.rows))

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional half."""
        return bool(self.unconditional)

    @property
    def owners(self) -> NDArray[np.intp]:
        """Of each conditional row of the batch, which picture it is of."""
        return np.array(
            [row.owner * self.repeats + i for row in self.rows for i in range(self.repeats)], np.intp
        )

    @property
    def weights(self) -> Array | None:
        """Of each conditional row of the batch, how much its difference counts; None without guidance."""
        if not self.guided:
            return None
        return np.repeat(np.array([row.weight for row in self.rows], np.float32), self.repeats)

    def over_batch(self, pictures: Array, *, blank: bool) -> Array:
        """Rows of the batch [batch, …], of one for each picture; zeros in the unconditional half if `blank`."""
        conditional = pictures[self.owners]
        if not self.guided:
            return conditional
        return np.concatenate([np.zeros_like(pictures) if blank else pictures, conditional])

    def check_lengths(self) -> None:
        """Raise `RequestError` where rows differ in length."""
        shapes = sorted({embeds.shape for row in (*self.unconditional, *self.rows) for embeds in row.of_step})
        if len(shapes) > 1:
            raise RequestError(
                f"embeddings of the negative and the positive prompt differ in shape: {' and '.join(map(str, shapes))}"
            )


def _of_pictures(rows: Sequence[_Row], unconditional: Sequence[_Row], request: FittedRequest) -> list[_Row]:
    """Rows that see the picture and the negative prompt, which the picture's own guidance needs.

    InstructPix2Pix adds up `scale · (text − picture) + image_scale · (picture − unconditional)`; as differences from
    the unconditional row, the picture's has a weight of `image_scale` less those of the texts.
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
    """Texts and their embeddings, in which equal texts are encoded once."""

    def __init__(self, request: FittedRequest, text_encoder: Callable[[], TextEncoder]) -> None:
        self._request, self._text_encoder = request, text_encoder
        self._syntax = SYNTAXES[request.prompt_syntax]
        self._embeds: dict[tuple[str, str], Array] = {}
        self._skips: dict[str, int | None] = {}

    def read(self, name: str, lines: Sequence[_Line], clip_skip: int | None) -> None:
        """Encode what `lines` say; `name` is for notices, and for `rows`."""
        self._skips[name] = clip_skip
        for text in dict.fromkeys(text for line in lines for text in line.of_step):
            self._embeds[name, text] = self._syntax.embed(self._text_encoder(), text, clip_skip, name)

    def lengthen(self, least: int) -> None:
        """Add empty chunks to what is shorter than the longest text, or than `least` tokens."""
        if not self._syntax.any_length or not self._embeds:
            return
        most = max(least, *(len(embeds) for embeds in self._embeds.values()))
        short = {key: embeds for key, embeds in self._embeds.items() if len(embeds) < most}
        if short:
            for key, embeds in short.items():
                empty = self._text_encoder().weighted([], self._skips[key[0]])
                chunks = (most - len(embeds)) // len(empty)
                self._embeds[key] = np.concatenate([embeds, *[empty] * chunks])

    def rows(self, name: str, lines: Sequence[_Line], given: Array | None) -> list[_Row]:
        """Embeddings that were given, or those of `lines`."""
        if given is not None:
            steps = self._request.num_steps
            return [_Row(of_step=[embeds] * steps, owner=owner) for owner, embeds in enumerate(given)]
        return [
            _Row(
                of_step=[self._embeds[name, text] for text in line.of_step],
                owner=line.owner,
                weight=line.weight,
            )
            for line in lines
        ]
