"""The VAE: encodes images as latents and decodes latents to images."""

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

# An image whose channels all vary by less than this is one colour in 8 bits.
_FLAT = 0.5 / 255
# The most pixels of an image that is encoded and decoded whole. Stable Diffusion's VAE needs 4.7 GB for it.
LARGEST_WHOLE = 1024 * 1024


class VaeGraphs:
    """The VAE's encoder or decoder, as a graph for the whole image and a graph in stages. Each is opened at first use.

    Args:
        whole: opens the graph for the whole image.
        staged: opens the graph in stages. None if the model has none; then large images are processed whole too.
        tiling: whether to use the stages. None means only for large images.
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
        """Open the graph that most images need."""
        if self._tiling and self._staged is not None:
            self._staged()
        else:
            self._whole()

    def load_all(self) -> None:
        """Open the graph for whole images, and with `tiling` also the one in stages."""
        self._whole()
        if self._tiling and self._staged is not None:
            self._staged()

    def __call__(self, name: str, array: Array, output: str, *, pixels: int) -> Array:
        """The `output` for the input `name`, one image or its latents [C, h, w]. `pixels` is the image's size."""
        large = pixels > LARGEST_WHOLE if self._tiling is None else self._tiling
        if large and self._staged is not None:
            return self._staged()(array)
        component, batch = self._whole(), np.ascontiguousarray(array[np.newaxis])
        with component.bound({name: batch.shape}, (output,)) as run:
            run.set(name, batch)
            found = run()[output][0]
            component.check_finite(output, found)
            # The next run overwrites the buffer.
            kept: Array = found.copy()
        return kept


class VaeEncoder:
    """Encodes images [H, W, 3] of 8 bits as latents [C, h, w], sampled from the posterior as in diffusers."""

    def __init__(self, graphs: VaeGraphs, spec: VaeSpec, scale: LatentScale) -> None:
        self._graphs, self._spec, self._scale = graphs, spec, scale

    def load(self) -> None:
        """Open the graph now."""
        self._graphs.load()

    def load_all(self) -> None:
        """Open each graph now."""
        self._graphs.load_all()

    def __call__(
        self,
        image: NDArray[np.uint8],
        noise: Callable[[tuple[int, ...]], Array],
        *,
        blank: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Encode one image, with grey where `blank` [H, W] is true. `noise` draws standard normal noise of a shape."""
        mean, log_variance = self._parameters(signed(image), blank)
        std = np.exp(np.float32(0.5) * log_variance.clip(-30, 20))
        return self._scale.scaled(mean + std * noise(mean.shape))

    def mean(self, image: NDArray[np.uint8], *, scaled: bool = False) -> Array:
        """The posterior's mean. Denoisers for instructions take it beside the latents, most of them not `scaled`."""
        mean, _ = self._parameters(signed(image), None)
        return self._scale.scaled(mean) if scaled else mean

    def _parameters(self, image: Array, blank: NDArray[np.bool_] | None) -> tuple[Array, Array]:
        """The posterior's mean and log variance, each [C, h, w], of an image [3, H, W]."""
        if blank is not None:
            image = np.where(blank, np.float32(0), image)
        pixels = image.shape[1] * image.shape[2]
        parameters = self._graphs(self._spec.image, image, self._spec.parameters, pixels=pixels)
        mean, log_variance = np.split(parameters, 2)
        return mean, log_variance


class VaeDecoder:
    """Decodes latents [C, h, w] to an image [H, W, 3] in 0..1, one at a time to bound the memory.

    Args:
        graphs: the decoder's graphs.
        spec: the names of its inputs and outputs.
        scale: converts between the VAE's latents and the denoiser's.
        factor: the width of a latent in pixels.
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

    def load_all(self) -> None:
        """Open each graph now."""
        self._graphs.load_all()

    def __call__(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decode one image. Raises `ComponentError` if it is not finite, or has a single colour."""
        pixels = latents.shape[1] * latents.shape[2] * self._factor**2
        raw = self._scale.unscaled(latents)
        unit = to_unit(self._graphs(self._spec.latents, raw, self._spec.decoded, pixels=pixels))
        if not np.ptp(unit, axis=(0, 1)).max() > _FLAT:
            self._blame(latents)
        return unit

    def _blame(self, latents: Array) -> NoReturn:
        name, what = self._spec.decoder, "the image has a single colour though its latents vary"
        if not np.ptp(latents, axis=(1, 2)).any():
            name, what = (
                self._denoiser,
                "the latents are the same everywhere, so the image has a single colour",
            )
        raise ComponentError(
            f"{name}: {what}: the graph overflows or is damaged; export it again in fp32", component=name
        )
