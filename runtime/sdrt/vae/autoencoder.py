"""The VAE: images to latents, and latents to images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import ComponentError
from sdrt.families import VaeSpec
from sdrt.images.arrays import signed, to_unit
from sdrt.onnx.session import Component
from sdrt.vae.latent_scale import LatentScale
from sdrt.vae.stages import StagedVae

__all__ = ["LARGEST_WHOLE", "VaeDecoder", "VaeEncoder", "VaeGraphs"]

Array = NDArray[np.float32]

# An image whose channels all stay within this is one colour once it has 8 bits.
_FLAT = 0.5 / 255
# Pixels up to which an image is encoded and decoded whole: Stable Diffusion's VAE takes 4.7 GB for so many.
LARGEST_WHOLE = 1024 * 1024


class VaeGraphs:
    """The VAE's encoder or decoder as a graph of the whole image and as one in stages, each opened at first use.

    Args:
        whole: opens the one.
        staged: opens the other; None where the model was exported without, and large images are made whole.
        tiling: whether to take the stages; None takes them for images that are large.
    """

    def __init__(
        self,
        whole: Callable[[], Component],
        staged: Callable[[], StagedVae] | None,
        *,
        tiling: bool | None,
    ) -> None:
        self._whole, self._staged, self._tiling = whole, staged, tiling

    def load(self) -> None:
        """Open what most images take."""
        if self._tiling and self._staged is not None:
            self._staged()
        else:
            self._whole()

    def __call__(self, name: str, array: Array, output: str, *, pixels: int) -> Array:
        """`output` for the input `name` of one image [C, h, w], of so many pixels."""
        large = pixels > LARGEST_WHOLE if self._tiling is None else self._tiling
        if large and self._staged is not None:
            return self._staged()(array)
        component, batch = self._whole(), np.ascontiguousarray(array[np.newaxis])
        with component.bound({name: batch.shape}, (output,)) as run:
            run.set(name, batch)
            found = run()[output][0]
            component.check_finite(output, found)
            # The buffer is written over by the next run.
            kept: Array = found.copy()
        return kept


class VaeEncoder:
    """Images [H, W, 3] of 8 bits to latents [C, h, w], a sample of the posterior as in diffusers."""

    def __init__(self, graphs: VaeGraphs, spec: VaeSpec, scale: LatentScale) -> None:
        self._graphs, self._spec, self._scale = graphs, spec, scale

    def __call__(
        self,
        image: NDArray[np.uint8],
        noise: Callable[[tuple[int, ...]], Array],
        *,
        blank: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Encode one image, grey where `blank` [H, W] is; `noise` gives standard normal noise of a shape."""
        mean, log_variance = self._parameters(signed(image), blank)
        std = np.exp(np.float32(0.5) * log_variance.clip(-30, 20))
        return self._scale.scaled(mean + std * noise(mean.shape))

    def mean(self, image: NDArray[np.uint8]) -> Array:
        """The posterior's mean, not scaled: what denoisers that follow instructions see beside the latents."""
        mean, _ = self._parameters(signed(image), None)
        return mean

    def _parameters(self, image: Array, blank: NDArray[np.bool_] | None) -> tuple[Array, Array]:
        """The posterior's mean and log variance, each [C, h, w], of an image [3, H, W]."""
        if blank is not None:
            image = np.where(blank, np.float32(0), image)
        pixels = image.shape[1] * image.shape[2]
        parameters = self._graphs(self._spec.image, image, self._spec.parameters, pixels=pixels)
        mean, log_variance = np.split(parameters, 2)
        return mean, log_variance


class VaeDecoder:
    """Latents [C, h, w] to an image [H, W, 3] in 0..1; one at a time, which bounds the memory.

    Args:
        graphs: the decoder's.
        spec: the names of its inputs and outputs.
        scale: between its latents and the denoiser's.
        factor: how many pixels a latent is wide.
        denoiser: the component to blame for latents that are the same everywhere.
    """

    def __init__(
        self, graphs: VaeGraphs, spec: VaeSpec, scale: LatentScale, *, factor: int, denoiser: str
    ) -> None:
        self._graphs, self._spec, self._scale, self._factor, self._denoiser = (
            graphs,
            spec,
            scale,
            factor,
            denoiser,
        )

    def load(self) -> None:
        """Open the graph now."""
        self._graphs.load()

    def __call__(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decode one image. Raises `ComponentError` when it is not finite or of one colour."""
        pixels = latents.shape[1] * latents.shape[2] * self._factor**2
        raw = self._scale.unscaled(latents)
        unit = to_unit(self._graphs(self._spec.latents, raw, self._spec.decoded, pixels=pixels))
        if not np.ptp(unit, axis=(0, 1)).max() > _FLAT:
            self._blame(latents)
        return unit

    def _blame(self, latents: Array) -> NoReturn:
        name, what = self._spec.decoder, "the image is of one colour though its latents are not"
        if not np.ptp(latents, axis=(1, 2)).any():
            name, what = self._denoiser, "the latents are the same everywhere, and so is the image"
        raise ComponentError(
            f"{name}: {what}: the graph overflows or is damaged; export it again in fp32", component=name
        )
