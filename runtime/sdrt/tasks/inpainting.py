"""Inpainting: keeps a part of an image, in latents while denoising and in pixels afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sdrt.images.reading import resized
from sdrt.schedulers import Plan

__all__ = ["Canvas", "KnownRegion", "crop_box"]

Array = NDArray[np.float32]
Image8 = NDArray[np.uint8]
_HALF = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownRegion:
    """The known part of the latents, which gets as much noise as the rest in every step.

    For U-Nets without a mask input: they see the known part, and their output there is replaced (RePaint's equation 8,
    Lugmayr et al. 2022, arXiv:2201.09865, with the same noise in all steps as in diffusers).

    Attributes:
        clean: latents [N, C, h, w] of the image.
        noise: unit noise of the same shape.
        mask: [N, 1, h, w], 1 where it is repainted.
    """

    clean: Array
    noise: Array
    mask: Array

    def restore(self, x: Array, sigma: float, plan: Plan, *, last: bool) -> None:
        """Put the known part back into the state `x` of a run of `plan`, with the noise of level `sigma`.

        After the last step the known part is clean, though some schedulers' last level leaves noise.
        """
        if last:
            known = self.clean / np.float32(plan.latents_scale(sigma))
        else:
            known = plan.noise_schedule.noised(self.clean, self.noise, sigma)
        x *= self.mask
        x += (1 - self.mask) * known


@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """An image, its mask, and the box of it that the U-Net sees.

    Attributes:
        image: [H, W, 3] of 8 bits.
        mask: [H, W] of 8 bits, white where it is repainted.
        box: left, top, right and bottom of the box, in pixels.
        height, width: the size to which the box is scaled for the U-Net.
        blur: the number of pixels inside the mask's edge over which the new image fades in.
    """

    image: Image8
    mask: Image8
    box: tuple[int, int, int, int]
    height: int
    width: int
    blur: float

    @cached_property
    def seen(self) -> Image8:
        """The part of the image that the U-Net sees, [height, width, 3]."""
        left, top, right, bottom = self.box
        return resized(self.image[top:bottom, left:right], self.height, self.width)

    @cached_property
    def seen_mask(self) -> NDArray[np.bool_]:
        """The part of the mask that the U-Net sees, [height, width]. Grey is rounded, as in diffusers."""
        left, top, right, bottom = self.box
        mask = resized(self.mask[top:bottom, left:right], self.height, self.width)
        return np.asarray(mask >= _HALF)

    def latent_mask(self, factor: int) -> Array:
        """The same mask for latents, each of which stands for `factor` pixels a side."""
        return self.seen_mask[::factor, ::factor].astype(np.float32)

    def composite(self, made: Array) -> Array:
        """The image with `made` [height, width, 3] in 0..1 inside the mask, and bit for bit unchanged outside."""
        left, top, right, bottom = self.box
        levels = (made * 255).round().astype(np.uint8)
        # Scaled in 8 bits, as an image editor does. If no scaling is needed, the precision is kept.
        fits = (bottom - top, right - left) == made.shape[:2]
        patch = (
            made if fits else resized(levels, bottom - top, right - left).astype(np.float32) / np.float32(255)
        )
        share = _faded(self.mask, self.blur)[top:bottom, left:right, np.newaxis]
        whole = self.image.astype(np.float32) / np.float32(255)
        inside = whole[top:bottom, left:right]
        whole[top:bottom, left:right] = np.where(share > 0, inside + share * (patch - inside), inside)
        return np.asarray(whole, dtype=np.float32)


def crop_box(mask: Image8, padding: int | None, height: int, width: int) -> tuple[int, int, int, int]:
    """The box around a mask's white pixels and `padding` pixels more, in the proportions of `height` and `width`.

    Returns left, top, right and bottom; the whole image if `padding` is None.
    """
    tall, wide = mask.shape
    if padding is None:
        return 0, 0, wide, tall
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, right = max(0, int(columns[0]) - padding), min(wide, int(columns[-1]) + 1 + padding)
    top, bottom = max(0, int(rows[0]) - padding), min(tall, int(rows[-1]) + 1 + padding)
    # Extend the side that is too short, within the image.
    left, right = _widened(left, right, round((bottom - top) * width / height), wide)
    top, bottom = _widened(top, bottom, round((right - left) * height / width), tall)
    return left, top, right, bottom


def _widened(start: int, end: int, length: int, most: int) -> tuple[int, int]:
    """The stretch, extended around its middle to `length` if there is room for it within `most`."""
    length = min(max(length, end - start), most)
    start = min(max(0, (start + end - length) // 2), most - length)
    return start, start + length


def _faded(mask: Image8, blur: float) -> Array:
    """The share of the new image in each pixel: 0 outside of the mask, rising to 1 inside."""
    from PIL import Image, ImageFilter

    hard = mask >= _HALF
    if blur <= 0:
        return hard.astype(np.float32)
    # A blurred mask is one half on its edge. Subtract that, so that the share rises from 0 at the edge.
    levels = Image.fromarray(hard.astype(np.uint8) * 255)
    soft = np.asarray(levels.filter(ImageFilter.GaussianBlur(blur)))
    share = (soft.astype(np.float32) / 255 - 0.5) * 2
    return np.where(hard, np.clip(share, 1 / 255, 1), 0).astype(np.float32)
