"""CLIP's vision encoder, and the projections of IP-Adapters, which make tokens of what it sees."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.families import IpAdapterSpec
from sdrt.families.capabilities import whole
from sdrt.images.clip_input import ClipInput
from sdrt.model_folder.checker import FEATURE_EXTRACTOR
from sdrt.model_folder.model import IMAGE_ENCODER, Model
from sdrt.onnx.session import Component

__all__ = ["ImageEncoder", "ImageProjection"]

Array = NDArray[np.float32]
_MOST_SEEN = 16
INPUT, EMBEDS, PATCHES = "pixel_values", "image_embeds", "penultimate_hidden_state"


class ImageEncoder:
    """Looks at images, one at a time. It remembers what it saw in the last few, which many calls have in common."""

    def __init__(self, component: Component, prepare: ClipInput) -> None:
        component.require((INPUT,), (EMBEDS, PATCHES))
        self._component, self._prepare = component, prepare
        self._seen: OrderedDict[tuple[bytes, str], Array] = OrderedDict()

    @classmethod
    def of(cls, model: Model, component: Component) -> ImageEncoder:
        """The vision encoder of a model, whose graph is `component`.

        As in diffusers, the preprocessor of the model's own pipeline prepares images, if it makes them of the size that
        the encoder takes.
        """
        size = whole(model.component_config(IMAGE_ENCODER), "image_size", IMAGE_ENCODER)
        prepare = ClipInput.square(size)
        if model.offers_safety_checker and (config := model.preprocessor_config):
            own = ClipInput.of(config, FEATURE_EXTRACTOR)
            prepare = own if own.crop == prepare.crop else prepare
        return cls(component, prepare)

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
        key = (hashlib.sha256(given.tobytes()).digest(), output)
        found = self._seen.pop(key, None)
        if found is None:
            found = _computed(self._component, INPUT, given, output)
            found.setflags(write=False)
        self._seen[key] = found
        while len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return found


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
        copied: Array = made.copy()
        return copied
