"""Previews: images of a run's latents, by a linear map that the exporter fitted, or by a TAESD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, refused
from sdrt.errors import IntegrityError, UnsupportedModelError
from sdrt.images.arrays import to_pil, to_unit
from sdrt.images.given_arrays import as_array, is_array_like

if TYPE_CHECKING:
    from PIL import Image

    from sdrt.model_folder.model import Model
    from sdrt.onnx.session import Component

__all__ = ["LinearPreview", "Preview", "TaesdPreview"]

Array = NDArray[np.float32]


class Preview(Protocol):
    """Makes images from latents without the VAE."""

    def __call__(self, latents: Array) -> list[Image.Image]:
        """Images of latents [N, C, h, w], as large as the VAE's images. Raises `RequestError` for another shape."""


class TaesdPreview:
    """Previews by a TAESD in the model's folder. They take a twentieth of the VAE's arithmetic."""

    def __init__(self, component: Component) -> None:
        component.require(("latent_sample",), ("sample",))
        self._component = component

    def __call__(self, latents: Array) -> list[Image.Image]:
        """See `Preview`."""
        latents = _checked(latents, 4)
        rows = (np.ascontiguousarray(one[np.newaxis], dtype=np.float32) for one in latents)
        made = [self._component.run({"latent_sample": row}, "sample")[0] for row in rows]
        return [to_pil(to_unit(image)) for image in made]


class LinearPreview:
    """Coarse previews by a linear map from a latent to a colour. They take a thousandth of the VAE's time."""

    def __init__(self, matrix: Array, factor: int) -> None:
        self._matrix, self._factor = matrix, factor

    @classmethod
    def of(cls, model: Model) -> LinearPreview:
        """The map of a model's latents to colours.

        Raises:
            UnsupportedModelError: the model was exported without a map.
            IntegrityError: the map has a wrong shape, or is not finite.
        """
        entry = model.preview_matrix()
        if entry is None:
            raise UnsupportedModelError.advised(
                f"{model.path} has no data for previews",
                "export the checkpoint again with this version of sdrt",
                component=model.family.vae.decoder,
                path=model.path,
            )
        try:
            matrix = np.array(entry, dtype=np.float32)
        except (TypeError, ValueError):
            matrix = np.empty(0, np.float32)
        channels = model.capabilities.latent_channels
        if matrix.shape != (channels + 1, 3) or not np.isfinite(matrix).all():
            raise IntegrityError.expected(
                f"{model.path}: the preview in sdrt.json is {brief(entry)}",
                f"{channels + 1} rows of 3 numbers; export the model again",
                component=model.family.vae.decoder,
                path=model.path,
            )
        return cls(matrix, model.capabilities.vae_scale_factor)

    def __call__(self, latents: Array) -> list[Image.Image]:
        """See `Preview`."""
        from PIL import Image

        latents = _checked(latents, len(self._matrix) - 1)
        unit = (np.moveaxis(latents, 1, -1) @ self._matrix[:-1] + self._matrix[-1]) / 2 + np.float32(0.5)
        size = latents.shape[3] * self._factor, latents.shape[2] * self._factor
        return [to_pil(one.clip(0, 1)).resize(size, Image.Resampling.BILINEAR) for one in unit]


def _checked(latents: Any, channels: int) -> Array:
    """The latents as an array [N, C, h, w] of numbers. Raises `RequestError` if they are not."""
    if not is_array_like(latents):
        fits = f"an array (images, {channels}, height, width)"
        raise refused("latents", f"are {type(latents).__name__}", fits)
    array = as_array("latents", latents)
    if array.ndim != 4 or array.shape[1] != channels or 0 in array.shape:
        raise refused("latents", f"have shape {array.shape}", f"(images, {channels}, height, width)")
    if array.dtype.kind != "f":
        raise refused("latents", f"are an array of {array.dtype}", "floats")
    return array
