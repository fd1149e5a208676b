"""A map from latents to colours, so that a run can be watched without decoding what it is at."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

__all__ = ["fit_preview"]

# More of them give no better map: of other images, eight leave the error that forty-eight do.
_IMAGES, _CELLS, _AT_ONCE = 8, 12, 4


def fit_preview(vae: AutoencoderKL) -> list[list[float]]:
    """The best linear map from a latent to the colour of the pixels that it stands for.

    Returns:
        ``[channels + 1, 3]``: of each channel of latents as the U-Net has them, and of 1, what it adds to red, green
        and blue in -1 to 1; by least squares on images of coloured blobs, which the VAE encodes.
    """
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    images = _blobs(_CELLS * factor)
    with torch.no_grad():
        # A few at a time: all of them at once would be the peak of an export's memory.
        means = [vae.encode(few).latent_dist.mean for few in torch.split(images, _AT_ONCE)]
    latents = torch.cat(means) * vae.config.scaling_factor
    colours = nn.functional.avg_pool2d(images, factor)
    rows = latents.movedim(1, -1).flatten(0, 2)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()
    targets = colours.movedim(1, -1).flatten(0, 2).double()
    # A VAE with random weights may have channels that say the same: the shortest of the solutions.
    fitted = torch.linalg.lstsq(rows, targets, driver="gelsd").solution
    return [[round(float(value), 6) for value in row] for row in fitted]


def _blobs(side: int) -> Tensor:
    """Images ``[N, 3, side, side]`` in -1 to 1: patches of greys and of strong colours, as images have them.

    They run into each other in one half of the images and have hard edges in the other.
    """
    generator = torch.Generator().manual_seed(0)
    hue, strong, saturation, value = torch.rand(4, _IMAGES, 1, 4, 4, generator=generator)
    saturation = torch.where(strong < 0.4, (1 + saturation) / 2, 0)
    # From hue, saturation and value to colours, each a shifted trapezoid of the hue.
    sector = (torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + 6 * hue) % 6
    colours = value - value * saturation * torch.minimum(sector, 4 - sector).clamp(0, 1)
    coarse = 2 * colours - 1
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    hard = nn.functional.interpolate(coarse, size=(side, side), mode="nearest")
    return torch.cat([smooth[::2], hard[1::2]]).clamp(-1, 1)
