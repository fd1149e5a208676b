"""Inpainting: keeps a part of an image, in latents while denoising and in pixels afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sdrt.images.arrays import to_bytes
from sdrt.images.reading import resized
from sdrt.schedulers import Plan

__all__ = ["WHITE", "Canvas", "KnownRegion", "covered", "crop_box", "fitted", "resized_mask", "spread"]

Array = NDArray[np.float32]
Image8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]
WHITE = 128
"""The least level of a mask that counts as white."""


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
        height, width: the size of what the U-Net sees.
        scaled: height and width to which the box is scaled. It lies in the middle of what the U-Net sees.
        blur: the number of pixels at the mask's edge over which the new image fades into the old one.
        covers: whether every white pixel is repainted, however thin the mask is there. The new image fades out around
            it. Otherwise the mask is sampled as in diffusers, which misses lines between the samples, and the new image
            fades in inside the mask.
    """

    image: Image8
    mask: Image8
    box: tuple[int, int, int, int]
    height: int
    width: int
    scaled: tuple[int, int]
    blur: float
    covers: bool = True

    @cached_property
    def seen(self) -> Image8:
        """The part of the image that the U-Net sees, [height, width, 3]. Its edge is repeated around it."""
        return self.cut(self.image)

    def cut(self, image: Image8) -> Image8:
        """The same part of another image, which is scaled to the size of this one first."""
        left, top, right, bottom = self.box
        whole = resized(image, *self.mask.shape)
        scaled = resized(whole[top:bottom, left:right], *self.scaled)
        return np.pad(scaled, (*self._around, (0, 0)), mode="edge")

    @cached_property
    def seen_mask(self) -> Mask:
        """The part of the mask that the U-Net sees, [height, width]. Grey is rounded, as in diffusers."""
        left, top, right, bottom = self.box
        mask = self.mask[top:bottom, left:right]
        if self.covers:
            scaled = covered(mask >= WHITE, *self.scaled)
        else:
            scaled = np.asarray(resized(mask, *self.scaled) >= WHITE)
        return np.pad(scaled, self._around)

    @property
    def _around(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The rows before and after the scaled box, and the columns."""
        (down, across) = (self.height - self.scaled[0], self.width - self.scaled[1])
        return (down // 2, down - down // 2), (across // 2, across - across // 2)

    def latent_mask(self, factor: int) -> Array:
        """The same mask for latents, each of which stands for `factor` pixels a side."""
        if self.covers:
            mask = covered(self.seen_mask, self.height // factor, self.width // factor)
        else:
            mask = self.seen_mask[::factor, ::factor]
        return mask.astype(np.float32)

    def misses(self, factor: int) -> bool:
        """Whether a white pixel is so far from all latents of the mask that nothing repaints it."""
        left, top, right, bottom = self.box
        white = self.mask[top:bottom, left:right] >= WHITE
        cells = covered(white, self.height // factor, self.width // factor)
        reached = _box_mean(self.latent_mask(factor) > 0, 1) > 0
        return bool((cells & ~reached).any())

    def composite(self, made: Array) -> Array:
        """The image with `made` [height, width, 3] in 0..1 where its share is not 0, else bit for bit unchanged."""
        left, top, right, bottom = self.box
        (above, _), (before, _) = self._around
        patch = made[above : above + self.scaled[0], before : before + self.scaled[1]]
        if patch.shape[:2] != (bottom - top, right - left):
            # Scaled in 8 bits, as an image editor does. If no scaling is needed, the precision is kept.
            levels = resized(to_bytes(patch), bottom - top, right - left)
            patch = levels.astype(np.float32) / np.float32(255)
        whole = self.image.astype(np.float32) / np.float32(255)
        inside, share = whole[top:bottom, left:right], self.share[top:bottom, left:right, np.newaxis]
        whole[top:bottom, left:right] = np.where(share > 0, inside + share * (patch - inside), inside)
        return np.asarray(whole, dtype=np.float32)

    @property
    def share(self) -> Array:
        """The share of the new image in each pixel [H, W]."""
        hard = self.mask >= WHITE
        return spread(hard, self.blur) if self.covers else _faded_in(hard, self.blur)


def _faded_in(mask: Mask, reach: float) -> Array:
    """The share of the new image in each pixel [H, W]: 0 outside of the mask, rising to 1 inside."""
    from PIL import Image, ImageFilter

    if reach <= 0:
        return mask.astype(np.float32)
    # A blurred mask is one half on its edge. Subtract that, so that the share rises from 0 at the edge.
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    soft = np.asarray(levels.filter(ImageFilter.GaussianBlur(reach)))
    share = (soft.astype(np.float32) / 255 - 0.5) * 2
    return np.where(mask, np.clip(share, 1 / 255, 1), 0).astype(np.float32)


def covered(mask: Mask, height: int, width: int) -> Mask:
    """The mask [H, W], scaled to [height, width]. A cell is true if any of its pixels is, so no thin line is lost."""
    for axis, length in enumerate((height, width)):
        given = mask.shape[axis]
        edges = np.arange(length + 1) * given
        first, last = edges[:-1] // length, -(-edges[1:] // length)
        total = np.insert(np.cumsum(mask, axis), 0, 0, axis)
        mask = np.take(total, last, axis) > np.take(total, first, axis)
    return mask


def resized_mask(mask: Image8, height: int, width: int, *, covers: bool) -> Image8:
    """The mask, scaled to [height, width] as `Canvas` scales it."""
    if not covers:
        return resized(mask, height, width)
    return np.where(covered(mask >= WHITE, height, width), 255, 0).astype(np.uint8)


def spread(mask: Mask, reach: float) -> Array:
    """The share of the new image in each pixel [H, W]: 1 in the mask, falling to 0 over `reach` pixels around it.

    Thin lines spread as far as wide ones. A blurred mask, which is the rule of other programs, nearly vanishes there.
    """
    pixels = math.ceil(reach)
    # Grow the mask first, so that the blur does not take anything from it.
    grown = _box_mean(mask, pixels // 2) > 0
    share = _box_mean(grown, pixels - pixels // 2)
    return np.where(mask, 1, share).astype(np.float32)


def _box_mean(mask: Mask, radius: int) -> NDArray[np.float64]:
    """The share of the mask in the square of `2 * radius + 1` pixels a side around each pixel."""
    side = 2 * radius + 1
    sums = np.pad(mask, ((radius + 1, radius), (radius + 1, radius))).astype(np.int64)
    for axis in (0, 1):
        total = sums.cumsum(axis)
        sums = np.take(total, np.arange(side, total.shape[axis]), axis)
        sums -= np.take(total, np.arange(total.shape[axis] - side), axis)
    return sums / side**2


def fitted(box: tuple[int, int, int, int], height: int, width: int) -> tuple[int, int]:
    """The largest height and width in the box's proportions that fit into this height and width."""
    left, top, right, bottom = box
    wide, tall = right - left, bottom - top
    # The box has whole pixels, so its proportions are only as exact as one of them.
    if abs(wide * height / width - tall) <= 1:
        return height, width
    scale = min(height / tall, width / wide)
    return max(1, round(tall * scale)), max(1, round(wide * scale))


def crop_box(mask: Mask, padding: int | None, height: int, width: int) -> tuple[int, int, int, int]:
    """The box around the pixels of a mask and `padding` pixels more, in the proportions of `height` and `width`.

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
