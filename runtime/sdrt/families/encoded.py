"""The embeddings of a text, and the denoiser's other conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoded", "RowConditions", "join_widths"]

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """The embeddings of one text.

    Attributes:
        embeds: [length, width], one vector per token.
        pooled: [width], one vector for the whole text; None in families without pooled embeddings.
    """

    embeds: Array
    pooled: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RowConditions:
    """The values from which the denoiser's extra inputs are computed, for one row of the batch.

    Attributes:
        pooled: [width], the pooled embedding of the row's text; None in families without pooled embeddings.
        height, width: the image's size in pixels.
        guidance_scale: the request's guidance scale.
        original_size, target_size: height and width in pixels that the model is conditioned on.
        crop: top and left edge, in pixels, of the crop that the model is conditioned on.
        aesthetic_score: the score that the model is conditioned on; None for models that take none.
    """

    pooled: Array | None
    height: int
    width: int
    guidance_scale: float
    original_size: tuple[int, int] = (0, 0)
    crop: tuple[int, int] = (0, 0)
    target_size: tuple[int, int] = (0, 0)
    aesthetic_score: float | None = None


def join_widths(encoded: Sequence[Encoded]) -> Encoded:
    """Concatenate the embeddings of several text encoders to [length, sum of widths].

    The result has the pooled embedding of the last encoder that makes one.
    """
    first, *others = encoded
    if not others:
        return first
    pooled = [one.pooled for one in encoded if one.pooled is not None]
    embeds = np.concatenate([one.embeds for one in encoded], axis=-1)
    return Encoded(embeds=embeds, pooled=pooled[-1] if pooled else None)
