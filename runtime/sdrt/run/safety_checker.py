"""The safety checker of Stable Diffusion 1: tells which images show one of its concepts.

The rule is that of diffusers' `StableDiffusionSafetyChecker`, with its rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.images.arrays import to_bytes
from sdrt.images.clip_input import ClipInput
from sdrt.onnx.session import Component

__all__ = ["SafetyChecker", "is_flagged"]

Array = NDArray[np.float32]
INPUT = "clip_input"
_OUTPUTS = ("special_cos_dist", "cos_dist", "special_thresholds", "thresholds")
# Graphs of diffusers 0.38 and older take the image too, and give the verdict.
_IMAGES, _VERDICT = "images", "has_nsfw_concepts"
# How much lower all thresholds are once a special concept is found.
_ADJUSTMENT = np.float32(0.01)


class SafetyChecker:
    """Looks at images, one at a time."""

    def __init__(self, component: Component, prepare: ClipInput) -> None:
        self._component, self._prepare = component, prepare
        self._is_foreign = _VERDICT in component.outputs
        if self._is_foreign:
            component.require((INPUT, _IMAGES), (_VERDICT,))
        else:
            component.require((INPUT,), _OUTPUTS)

    def __call__(self, image: Array) -> bool:
        """Whether an image [H, W, 3] in 0..1 is flagged.

        Raises:
            ComponentError: the graph gives a value that is not finite, which is no verdict.
        """
        given = self._prepare(to_bytes(image))
        if self._is_foreign:
            feeds = {INPUT: given, _IMAGES: image[None]}
            inputs = self._component.inputs
            # Such graphs may be in float16.
            typed = {name: array.astype(inputs[name].dtype) for name, array in feeds.items()}
            return bool(self._component.run(typed, _VERDICT)[0])
        return is_flagged(*self._scores(given))

    def _scores(self, given: Array) -> list[Array]:
        with self._component.bound({INPUT: given.shape}, _OUTPUTS) as run:
            run.set(INPUT, given)
            made = run()
            for name in _OUTPUTS:
                self._component.check_finite(name, made[name])
            # The next run overwrites the buffers.
            special, cosines, special_thresholds, thresholds = (made[name].copy() for name in _OUTPUTS)
        return [special[0], cosines[0], special_thresholds, thresholds]


def is_flagged(special: Array, cosines: Array, special_thresholds: Array, thresholds: Array) -> bool:
    """Whether a concept's cosine is above its threshold, rounded to three decimals.

    Args:
        special: the cosines [3] of the concepts that call for special care. From the first one that is found on, all
            thresholds are lower.
        cosines: those [17] of the other concepts.
        special_thresholds, thresholds: theirs.
    """
    adjustment = np.float32(0)
    for one, threshold in zip(special, special_thresholds, strict=True):
        if _score(one, threshold, adjustment) > 0:
            adjustment = _ADJUSTMENT
    return bool((_score(cosines, thresholds, adjustment) > 0).any())


def _score(cosine: Any, threshold: Any, adjustment: np.float32) -> Any:
    return np.round(cosine - threshold + adjustment, 3)
