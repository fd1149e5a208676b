"""CLIP's vision encoder, and the projections of IP-Adapters, which make tokens of what it sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.families import IpAdapterSpec
from sdrt.images.clip_input import ClipInput
from sdrt.onnx.session import Component

__all__ = ["ImageEncoder", "ImageProjection"]

Array = NDArray[np.float32]
INPUT, EMBEDS, PATCHES = "pixel_values", "image_embeds", "penultimate_hidden_state"


class ImageEncoder:
    """Looks at images, one at a time."""

    def __init__(self, component: Component, prepare: ClipInput) -> None:
        component.require((INPUT,), (EMBEDS, PATCHES))
        self._component, self._prepare = component, prepare

    def __call__(self, image: NDArray[np.uint8], *, patches: bool) -> Array:
        """What it sees in an image [H, W, 3] of 8 bits.

        That is the embedding [1, width] of the whole, or with `patches` the tokens [1, patches, width] of its parts.
        """
        return self._run(self._prepare(image), PATCHES if patches else EMBEDS)

    def of_zeros(self) -> Array:
        """The tokens [1, patches, width] of an input of zeros."""
        shape = self._component.inputs[INPUT].shape[1:]
        return self._run(np.zeros((1, *map(int, shape)), np.float32), PATCHES)

    def _run(self, given: Array, output: str) -> Array:
        return _computed(self._component, INPUT, given, output)


class ImageProjection:
    """Makes the tokens that the denoiser takes."""

    def __init__(self, component: Component, spec: IpAdapterSpec) -> None:
        component.require((spec.image,), (spec.tokens,))
        self._component, self._spec = component, spec

    def __call__(self, seen: Array) -> Array:
        """The tokens [images, tokens, width] of what the encoder has seen, [images, …]."""
        return _computed(self._component, self._spec.image, seen, self._spec.tokens)


def _computed(component: Component, name: str, given: NDArray[Any], output: str) -> Array:
    with component.bound({name: given.shape}, (output,)) as run:
        run.set(name, given)
        made = run()[output]
        component.check_finite(output, made)
        # The next run overwrites the buffers.
        return made.copy()
