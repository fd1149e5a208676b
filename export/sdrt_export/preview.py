"""Fits a linear map from latents to colours, for previews without the VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdrt.families.specs import VaeSpec
from sdrt.vae.latent_scale import LatentScale
from sdrt_export.architectures.vae import VaeConfig, vae_decoder, vae_encoder
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.memory import Once, bind
from sdrt_export.tensors.array import Array

__all__ = ["fit_preview"]

# Decoding takes most of the time. Eight images of 12 cells take nine times as long, and the errors of their map are 2
# to 5% smaller.
_IMAGES, _CELLS, _PATCHES = 2, 8, 4
_GREYS = 0.4

Doubles = NDArray[np.float64]


def fit_preview(config: Mapping[str, Any], tensors: Mapping[str, Array]) -> list[list[float]]:
    """The linear map from a latent, as the U-Net has it, to the mean colour of the pixels that the VAE decodes from it.

    It is fitted by least squares on images of coloured patches that the VAE encodes and decodes again. The colours are
    those that it decodes, because a preview shows what the image will show.

    Args:
        config: the VAE's, as diffusers has it.
        tensors: its weights, by diffusers' names.

    Returns:
        ``[channels + 1, 3]``: the amount that each channel of a latent, and a constant 1, add to red, green and blue in
        -1 to 1.

    Raises:
        UnsupportedModelError, IntegrityError: the config is not supported, or the weights do not belong to it.
    """
    latents, colours = _pairs(config, tensors, _images(_CELLS * VaeConfig.of(config).factor))
    # Channels of a VAE with random weights may depend on one another. This finds the smallest solution then.
    fitted = np.linalg.lstsq(latents, colours, rcond=None)[0]
    return [[round(float(value), 6) for value in row] for row in fitted]


def _pairs(config: Mapping[str, Any], tensors: Mapping[str, Array], images: Array) -> tuple[Doubles, Doubles]:
    """The latents of images, with a constant 1 behind, and the mean colours that the VAE decodes from them."""
    shape, latents, colours = VaeConfig.of(config), [], []
    scale = LatentScale(
        factor=config.get("scaling_factor") or VaeSpec().scaling_factor,
        means=tuple(config.get("latents_mean") or ()),
        deviations=tuple(config.get("latents_std") or ()),
    )
    graphs = Graph("vae_encoder"), Graph("vae_decoder")
    vae_encoder(shape, FusedLayers(graphs[0]))
    vae_decoder(shape, FusedLayers(graphs[1]))
    encoder, decoder = (Once(bind(graph, tensors)) for graph in graphs)
    for image in images:
        (moments,) = encoder.run(["latent_parameters"], {"sample": image[np.newaxis]})
        mean = moments[:, : shape.latent_channels]
        (decoded,) = decoder.run(["sample"], {"latent_sample": mean})
        latents.append(_rows(scale.scaled(mean)))
        colours.append(_rows(_cells(decoded.clip(-1, 1), shape.factor)))
    rows = np.concatenate(latents)
    return np.hstack([rows, np.ones_like(rows[:, :1])]), np.concatenate(colours)


def _cells(image: Array, side: int) -> Array:
    """The means of squares of an image ``[1, C, h, w]``."""
    _, channels, height, width = image.shape
    squares = image.reshape(1, channels, height // side, side, width // side, side)
    means: Array = squares.mean((3, 5), dtype=np.float64)
    return means


def _rows(cells: Array) -> Doubles:
    """``[1, C, h, w]`` as ``[h·w, C]``."""
    return np.moveaxis(cells, 1, -1).reshape(-1, cells.shape[1]).astype(np.float64)


def _images(side: int) -> Array:
    """Images ``[N, 3, side, side]`` in -1 to 1, of patches with soft edges and with hard ones."""
    colours = _colours(_IMAGES * _PATCHES**2).reshape(_IMAGES, _PATCHES, _PATCHES, 3)
    methods = (Image.Resampling.BICUBIC, Image.Resampling.NEAREST)
    made = [
        [_enlarged(image[..., channel], side, methods[index % 2]) for channel in range(3)]
        for index, image in enumerate(colours)
    ]
    return np.array(made).clip(-1, 1)


def _enlarged(plane: Array, side: int, method: Image.Resampling) -> Array:
    return np.asarray(Image.fromarray(plane).resize((side, side), method))


def _colours(count: int) -> NDArray[np.float32]:
    """Greys and strong colours ``[count, 3]`` in -1 to 1."""
    hue, strong, value, kind = np.random.default_rng(0).random((4, count))
    saturation = np.where(kind < _GREYS, 0, (1 + strong) / 2)
    # HSV to RGB: each colour is a shifted trapezoid of the hue.
    sector = (np.array([5.0, 3.0, 1.0]) + 6 * hue[:, np.newaxis]) % 6
    trapezoid = np.minimum(sector, 4 - sector).clip(0, 1)
    colours = value[:, np.newaxis] * (1 - saturation[:, np.newaxis] * trapezoid)
    made: NDArray[np.float32] = (2 * colours - 1).astype(np.float32)
    return made
