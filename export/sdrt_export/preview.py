"""Fits a linear map from latents to colours, for previews without the VAE."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

__all__ = ["fit_preview"]

# Forty-eight images give no better map than eight.
_IMAGES, _CELLS, _AT_ONCE = 8, 12, 4


def fit_preview(vae: AutoencoderKL) -> list[list[float]]:
    """The linear map from a latent, as the U-Net has it, to the mean colour of the pixels that the VAE decodes from it.

    It is fitted by least squares on images of coloured blobs that the VAE encodes and decodes again. The colours are
    those that it decodes, because a preview shows what the image will show.

    Returns:
        ``[channels + 1, 3]``: the amount that each channel of a latent, and a constant 1, add to red, green and blue in
        -1 to 1.
    """
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    with torch.no_grad():
        # A few at a time, because all at once would need more memory than the rest of an export.
        means = [vae.encode(few).latent_dist.mean for few in torch.split(_blobs(_CELLS * factor), _AT_ONCE)]
        decoded = [vae.decode(few).sample.clamp(-1, 1) for few in means]
    rows = _rows(torch.cat(means) * vae.config.scaling_factor)
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    targets = _rows(nn.functional.avg_pool2d(torch.cat(decoded), factor))
    # Channels of a VAE with random weights may depend on one another. This driver finds the smallest solution then.
    fitted = torch.linalg.lstsq(rows, targets, driver="gelsd").solution
    return [[round(float(value), 6) for value in row] for row in fitted]


def _rows(cells: Tensor) -> Tensor:
    """``[N, C, h, w]`` as ``[N·h·w, C]`` in float64."""
    return cells.movedim(1, -1).flatten(0, 2).double()


def _blobs(side: int) -> Tensor:
    """Images ``[N, 3, side, side]`` in -1 to 1 with patches of greys and of strong colours.

    Patches blend into each other in one half of the images, and have hard edges in the other half.
    """
    generator = torch.Generator().manual_seed(0)
    hue, strong, saturation, value = torch.rand(4, _IMAGES, 1, 4, 4, generator=generator)
    saturation = torch.where(strong < 0.4, (1 + saturation) / 2, 0)
    # HSV to RGB: each colour is a shifted trapezoid of the hue.
    sector = (torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + 6 * hue) % 6
    colours = value - value * saturation * torch.minimum(sector, 4 - sector).clamp(0, 1)
    coarse = 2 * colours - 1
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    hard = nn.functional.interpolate(coarse, size=(side, side), mode="nearest")
    return torch.cat([smooth[::2], hard[1::2]]).clamp(-1, 1)
