"""Makes the latents of a run's first step, from noise and the image that the user gave, if any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdrt.common.notices import Notices
from sdrt.common.rng import Generator
from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import signed
from sdrt.images.reading import resized
from sdrt.request.fitted import FittedRequest
from sdrt.request.fitting import rounded_size
from sdrt.schedulers import Plan
from sdrt.tasks.inpainting import WHITE, Canvas, KnownRegion, crop_box, fitted, resized_mask, spread

if TYPE_CHECKING:
    from sdrt.vae.autoencoder import VaeEncoder

__all__ = ["Preparation", "Prepared"]

T = TypeVar("T")
Array = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The latents of the first step, and the inputs that stay the same in all steps.

    Attributes:
        x: the noisy latents [N, C, h, w].
        extra_channels: further input channels [N, channels, h, w] of the U-Net, such as the latents of an image.
        zero_unconditional: whether the unconditional half gets zeros instead of the extra channels.
        class_label: the class label of every row, for U-Nets that take one.
        known_region: the part of the latents to keep, for inpainting with a U-Net that has no input for a mask.
        canvases: for each image, the image that the user gave and its mask; empty without a mask.
    """

    x: Array
    extra_channels: Array | None = None
    zero_unconditional: bool = False
    class_label: int | None = None
    known_region: KnownRegion | None = None
    canvases: tuple[Canvas, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """Makes the latents of a run's first step.

    Each image draws all of its noise from its own generator, in the same order as diffusers.

    Attributes:
        request: the request, completed by `fit`.
        plan: the noise levels of the run. The latents get the first one.
        generators: the source of noise for each image.
        capabilities: the capabilities of the model.
        encoder: returns the VAE's encoder. It is called only if an image has to be encoded.
        notices: receives warnings.
        low_res_noise: returns √ᾱ and √(1 − ᾱ) for a noise level of an upscaling model.
    """

    request: FittedRequest
    plan: Plan
    generators: list[Generator]
    capabilities: Capabilities
    encoder: Callable[[], VaeEncoder]
    notices: Notices
    low_res_noise: Callable[[int], tuple[float, float]]

    def run(self) -> Prepared:
        """Draw the noise and encode the images, as the request and the model's task need them."""
        request = self.request
        self._warn_of_stretching()
        self._warn_of_strength()
        if request.latents is not None and request.image is None:
            return Prepared(x=np.asarray(request.latents * np.float32(self.plan.init_scale)))
        if request.image is None:
            return Prepared(x=self._noise())
        if self.capabilities.task.has_image_guidance:
            return self._instructions()
        if self.capabilities.task.has_noise_level:
            return self._upscaling()
        return self._image_to_image() if request.mask_image is None else self._inpainting()

    def _warn_of_stretching(self) -> None:
        """Warn of a size that has not the image's proportions."""
        request, step = self.request, self.capabilities.size_step
        if request.image is None or request.image_is_latents or request.padding_mask_crop is not None:
            return
        tall, wide = request.image[0].shape[:2]
        height, width = request.size
        # A size that is rounded to the model's step has nearly the proportions.
        if min(abs(width * tall / wide - height), abs(height * wide / tall - width)) >= step:
            fits = max(step, round(width * tall / wide / step) * step)
            self.notices.warn(
                f"image has {wide}x{tall} pixels and is stretched to {width}x{height}: "
                f"to keep its proportions, give width {width} and height {fits}"
            )

    def _warn_of_strength(self) -> None:
        if self._starts_later and self.request.completed.strength is not None:
            self.notices.warn(
                "strength has no effect with denoising_start, which decides where the run begins"
            )

    def _warn_of_thin_masks(self, canvases: Sequence[Canvas]) -> None:
        factor = self.capabilities.vae_scale_factor
        if not self.request.composite and any(canvas.misses(factor) for canvas in canvases):
            self.notices.warn(
                f"mask_image has lines of less than {factor} pixels, which diffusers' rule misses: "
                "leave out composite=False (--no-composite) to repaint them"
            )

    @property
    def _shape(self) -> tuple[int, int, int]:
        """The shape [C, h, w] of the latents of one image."""
        request, factor = self.request, self.capabilities.vae_scale_factor
        return self.capabilities.latent_channels, request.height // factor, request.width // factor

    def _noise(self) -> Array:
        """Draw the first latents of a run that starts from noise alone."""
        noise = np.stack([generator.randn(self._shape) for generator in self.generators])
        return np.asarray(noise * np.float32(self.plan.init_scale))

    def _noised(self, latents: Array, noise: Array) -> Array:
        """Return the first latents of a run that starts from an image, given its latents and unit noise.

        With `denoising_start`, the image's latents are those that diffusers has at this level. They get no noise.
        """
        first = self.plan.sigmas[0]
        if self._starts_later:
            return np.asarray(latents / np.float32(self.plan.latents_scale(first)))
        return self.plan.noise_schedule.noised(latents, noise, first)

    def _for_each_image(self, per_prompt: Sequence[T]) -> Iterator[tuple[T, Generator]]:
        """Yield for every image the item of its prompt, and the image's generator."""
        for index, generator in enumerate(self.generators):
            yield per_prompt[index // self.request.num_images_per_prompt], generator

    def _input_images(self, shrink: int = 1) -> list[Image]:
        """Return the images that the user gave, resized to the size of the result divided by `shrink`."""
        height, width = self.request.height, self.request.width
        return [resized(image, height // shrink, width // shrink) for image in self.request.image]

    def _image_to_image(self) -> Prepared:
        latents, noise = [], []
        for one, generator in self._latents_of_images():
            latents.append(one)
            # As in diffusers, a run that adds no noise draws none.
            noise.append(one if self._starts_later else generator.randn(self._shape))
        return Prepared(x=self._noised(np.stack(latents), np.stack(noise)))

    def _latents_of_images(self) -> Iterator[tuple[Array, Generator]]:
        """Yield for every image the latents to start from, and the image's generator, which encoding draws from."""
        request = self.request
        if not request.image_is_latents:
            encoder = self.encoder()
            for image, generator in self._for_each_image(self._input_images()):
                yield encoder(image, generator.randn), generator
        elif len(request.image.array) == request.num_images:
            yield from zip(request.image.array, self.generators, strict=True)
        else:
            yield from self._for_each_image(request.image.array)

    @property
    def _starts_later(self) -> bool:
        return self.request.denoising_start is not None

    def _instructions(self) -> Prepared:
        encoder = self.encoder()
        scaled = self.capabilities.scales_image
        encoded = [encoder.mean(image, scaled=scaled) for image in self._input_images()]
        per_image = np.stack([latents for latents, _ in self._for_each_image(encoded)])
        return Prepared(x=self._noise(), extra_channels=per_image, zero_unconditional=True)

    def _upscaling(self) -> Prepared:
        level = self.request.noise_level
        assert level is not None  # filled in by `fit`
        signal, noise = map(np.float32, self.low_res_noise(level))
        small = [signed(image) for image in self._input_images(self.capabilities.vae_scale_factor)]
        noisy = [
            signal * image + noise * generator.randn(image.shape)
            for image, generator in self._for_each_image(small)
        ]
        return Prepared(x=self._noise(), extra_channels=np.stack(noisy), class_label=level)

    def _inpainting(self) -> Prepared:
        request, capabilities = self.request, self.capabilities
        encoder = None if request.image_is_latents else self.encoder()
        given = [one for one, _ in self._latents_of_images()] if request.image_is_latents else []
        canvases = tuple(canvas for canvas, _ in self._for_each_image(_canvases(request, capabilities)))
        self._warn_of_thin_masks(canvases)
        masks = [canvas.latent_mask(capabilities.vae_scale_factor) for canvas in canvases]
        # A U-Net for inpainting takes the mask and the masked image's latents as further channels.
        from_noise = request.strength == 1 and not self._starts_later
        takes_mask = capabilities.task.sees_latents
        clean, noise, extra_channels = list(given), list[Array](), list[Array]()
        for canvas, mask, generator in zip(canvases, masks, self.generators, strict=True):
            if encoder is not None and not (from_noise and takes_mask):
                clean.append(encoder(canvas.seen, generator.randn))
            noise.append(generator.randn(self._shape))
            if encoder is None:
                continue
            if takes_mask:
                kept = encoder(canvas.seen, generator.randn, blank=canvas.seen_mask)
                extra_channels.append(np.concatenate([mask[np.newaxis], kept]))
            else:
                # diffusers also encodes the masked image here, and draws noise for it.
                generator.randn(self._shape)
        unit = np.stack(noise)
        noise_alone = np.asarray(unit * np.float32(self.plan.init_scale))
        x = noise_alone if from_noise else self._noised(np.stack(clean), unit)
        if takes_mask:
            return Prepared(x=x, extra_channels=np.stack(extra_channels), canvases=canvases)
        known = KnownRegion(clean=np.stack(clean), noise=unit, mask=np.stack(masks)[:, np.newaxis])
        # An image that was given as latents has no pixels to keep.
        return Prepared(x=x, known_region=known, canvases=() if given else canvases)


def _canvases(request: FittedRequest, capabilities: Capabilities) -> list[Canvas]:
    """Return for each prompt its image, its mask, and the box of the image that the U-Net sees."""
    images = request.image
    if request.image_is_latents:
        images = [np.zeros((*mask.shape, 3), np.uint8) for mask in request.mask_image]
    return [
        _canvas(request, capabilities, image, mask)
        for image, mask in zip(images, request.mask_image, strict=True)
    ]


def _canvas(request: FittedRequest, capabilities: Capabilities, image: Image, mask: Image) -> Canvas:
    # Outpainting keeps every pixel of the image. Without compositing, the result is that of diffusers.
    covers = request.composite and request.outpaint is None
    height, width = request.size
    tall, wide = mask.shape
    crops = request.padding_mask_crop is not None
    if not crops and request.size != rounded_size(tall, wide, capabilities):
        image, mask = resized(image, height, width), resized_mask(mask, height, width, covers=covers)
    fading = spread(mask >= WHITE, request.mask_blur) > 0 if crops and covers else mask > 0
    box = crop_box(fading, request.padding_mask_crop, height, width)
    return Canvas(
        image=image,
        mask=mask,
        box=box,
        height=height,
        width=width,
        scaled=fitted(box, height, width) if crops else (height, width),
        blur=request.mask_blur,
        covers=covers,
    )
