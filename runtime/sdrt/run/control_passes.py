"""The control images of a pass after the first, or of a part of an outpainting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.images.reading import resized
from sdrt.request.fitted import FittedRequest
from sdrt.tasks.outpainting import Growth

__all__ = ["on_canvas", "one_per_image"]

Image = NDArray[np.uint8]


def one_per_image(request: FittedRequest) -> dict[str, Any]:
    """The ControlNets of a request in which every image has its own prompt."""
    count = request.num_images_per_prompt
    return _changed(request, lambda images: [image for image in images for _ in range(count)])


def on_canvas(request: FittedRequest, growths: Sequence[Growth], number: int) -> dict[str, Any]:
    """The ControlNets of pass `number` of an outpainting. They see the part of the result that it has by then.

    A control image shows the whole result, and is scaled to its size.
    """
    width, height = request.image[0].shape[1::-1]
    for growth in growths:
        width, height = growth.of(width, height)
    later = growths[number + 1 :]
    left, top = sum(one.left for one in later), sum(one.top for one in later)
    right, bottom = width - sum(one.right for one in later), height - sum(one.bottom for one in later)

    def cut(images: Sequence[Image]) -> list[Image]:
        return [resized(image, height, width)[top:bottom, left:right] for image in images]

    return _changed(replace(request, **one_per_image(request)), cut)


def _changed(request: FittedRequest, change: Callable[[Sequence[Image]], Sequence[Image]]) -> dict[str, Any]:
    return {
        "controls": tuple(replace(one, images=tuple(change(one.images))) for one in request.controls),
    }
