"""What a run begins with: noise, and under it or beside it the picture that the user gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdrt.common.rng import Generator
from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import signed
from sdrt.images.reading import resized
from sdrt.request.fitted import FittedRequest
from sdrt.schedulers import Plan
from sdrt.tasks.inpainting import Canvas, Known, crop_box

if TYPE_CHECKING:
    from sdrt.vae.autoencoder import VaeEncoder

__all__ = ["Preparation", "Prepared"]

T = TypeVar("T")
Array = NDArray[np.float32]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The state of the first level, and what goes with it through all of the run.

    Attributes:
        x: [N, C, h, w].
        beside: [N, channels, h, w] that the U-Net sees beside x; or None.
        blank: whether the unconditional half sees zeros in its place.
        labels: the class label of every row, of U-Nets that take one.
        known: what of the latents stays, where the U-Net knows nothing of masks; or None.
        canvases: of each picture, where it is put into the one that was given; empty without a mask.
    """

    x: Array
    beside: Array | None = None
    blank: bool = False
    labels: int | None = None
    known: Known | None = None
    canvases: tuple[Canvas, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """What a run can begin from.

    Noise is drawn and pictures are encoded for each picture from its own generator, in diffusers' order.

    Attributes:
        request: filled in by `fit`.
        plan: whose first level the state is at.
        generators: one for each picture.
        capabilities: the model's.
        encoder: makes the VAE's encoder, where there is a picture that needs it.
        low_res_noise: √ᾱ and √(1 − ᾱ) of a noise level of an upscaling model.
    """

    request: FittedRequest
    plan: Plan
    generators: list[Generator]
    capabilities: Capabilities
    encoder: Callable[[], VaeEncoder]
    low_res_noise: Callable[[int], tuple[float, float]]

    def run(self) -> Prepared:
        """Draw and encode what the request and the model's task ask for."""
        request = self.request
        if request.latents is not None and request.image is None:
            return Prepared(x=np.asarray(request.latents * np.float32(self.plan.init_scale)))
        if request.image is None:
            return Prepared(x=self._noise())
        if self.capabilities.task.has_image_guidance:
            return self._instructions()
        if self.capabilities.task.has_noise_level:
            return self._upscaling()
        return self._image_to_image() if request.mask_image is None else self._inpainting()

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Of a picture's latents."""
        request, factor = self.request, self.capabilities.vae_scale_factor
        return self.capabilities.latent_channels, request.height // factor, request.width // factor

    def _noise(self) -> Array:
        """The first state of a run from noise alone."""
        noise = np.stack([generator.randn(self._shape) for generator in self.generators])
        return np.asarray(noise * np.float32(self.plan.init_scale))

    def _noised(self, clean: Array, noise: Array) -> Array:
        """The first state of a run from an image."""
        return self.plan.noise_schedule.noised(clean, noise, self.plan.sigmas[0])

    def _each(self, of_prompt: Sequence[T]) -> Iterator[tuple[T, Generator]]:
        """For every picture what its prompt has, and its generator."""
        for number, generator in enumerate(self.generators):
            yield of_prompt[number // self.request.num_images_per_prompt], generator

    def _pictures(self, shrink: int = 1) -> list[Picture]:
        """The pictures given, at the size of the result or a fraction of it."""
        height, width = self.request.height, self.request.width
        return [resized(picture, height // shrink, width // shrink) for picture in self.request.image]

    def _image_to_image(self) -> Prepared:
        clean, noise = [], []
        if self.request.image_is_latents:
            for latents, generator in self._each(self.request.image.array):
                clean.append(latents)
                noise.append(generator.randn(self._shape))
        else:
            encoder = self.encoder()
            for picture, generator in self._each(self._pictures()):
                clean.append(encoder(picture, generator.randn))
                noise.append(generator.randn(self._shape))
        return Prepared(x=self._noised(np.stack(clean), np.stack(noise)))

    def _instructions(self) -> Prepared:
        encoder = self.encoder()
        encoded = [encoder.mean(picture) for picture in self._pictures()]
        return Prepared(x=self._noise(), beside=np.stack([one for one, _ in self._each(encoded)]), blank=True)

    def _upscaling(self) -> Prepared:
        level = self.request.noise_level
        assert level is not None  # filled in by `fit`
        signal, noise = map(np.float32, self.low_res_noise(level))
        small = [signed(picture) for picture in self._pictures(self.capabilities.vae_scale_factor)]
        beside = [signal * one + noise * generator.randn(one.shape) for one, generator in self._each(small)]
        return Prepared(x=self._noise(), beside=np.stack(beside), labels=level)

    def _inpainting(self) -> Prepared:
        request, capabilities, encoder = self.request, self.capabilities, self.encoder()
        canvases = tuple(canvas for canvas, _ in self._each(_canvases(request)))
        masks = [canvas.latent_mask(capabilities.vae_scale_factor) for canvas in canvases]
        from_noise, shown = request.strength == 1, capabilities.task.sees_latents
        clean, noise, beside = [], [], []
        for canvas, mask, generator in zip(canvases, masks, self.generators, strict=True):
            if not (from_noise and shown):
                clean.append(encoder(canvas.seen, generator.randn))
            noise.append(generator.randn(self._shape))
            if shown:
                kept = encoder(canvas.seen, generator.randn, blank=canvas.seen_mask)
                beside.append(np.concatenate([mask[np.newaxis], kept]))
            else:
                # diffusers encodes the masked picture all the same, for which noise is drawn.
                generator.randn(self._shape)
        unit = np.stack(noise)
        whole = np.asarray(unit * np.float32(self.plan.init_scale))
        x = whole if from_noise else self._noised(np.stack(clean), unit)
        if shown:
            return Prepared(x=x, beside=np.stack(beside), canvases=canvases)
        known = Known(clean=np.stack(clean), noise=unit, mask=np.stack(masks)[:, np.newaxis])
        return Prepared(x=x, known=known, canvases=canvases)


def _canvases(request: FittedRequest) -> list[Canvas]:
    """Of each prompt the image, its mask and the box that is worked on."""
    return [
        Canvas(
            image=image,
            mask=mask,
            box=crop_box(mask, request.padding_mask_crop, *request.size),
            height=request.height,
            width=request.width,
            blur=request.mask_blur,
        )
        for image, mask in zip(request.image, request.mask_image, strict=True)
    ]
