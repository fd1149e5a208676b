"""The two halves of the VAE: images to the moments of latents, and latents to images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt_export.architectures.vae import VaeConfig, vae_decoder, vae_encoder
from sdrt_export.architectures.vae_stages import decoder_parts, encoder_parts
from sdrt_export.components.component import Component, Config, Inputs, noise
from sdrt_export.tensors.array import Array

__all__ = ["VAE_DECODER", "VAE_ENCODER"]


def _encoder_examples(config: Config, size: int) -> Inputs:
    shape = VaeConfig.of(config)
    batch, height, width = [(2, 6, 4), (1, 3, 5), (2, 4, 3)][size]
    factor = shape.factor
    return {"sample": noise(batch, shape.in_channels, height * factor, width * factor, seed=size)}


def _decoder_examples(config: Config, size: int) -> Inputs:
    batch, height, width = [(2, 8, 6), (1, 5, 7), (2, 6, 4)][size]
    return {"latent_sample": noise(batch, VaeConfig.of(config).latent_channels, height, width, seed=size)}


def _preview(config: Config, tensors: Mapping[str, Array]) -> dict[str, Any]:
    from sdrt_export.preview import fit_preview

    return {"preview": fit_preview(config, tensors)}


VAE_ENCODER = Component(
    name="vae_encoder",
    checkpoint="vae",
    library="diffusers",
    class_name="AutoencoderKL",
    write=lambda config, g, hosted: vae_encoder(VaeConfig.of(config), g),
    parts=lambda config: encoder_parts(VaeConfig.of(config)),
    examples=_encoder_examples,
    outputs=lambda config: ["latent_parameters"],
)

VAE_DECODER = Component(
    name="vae_decoder",
    checkpoint="vae",
    library="diffusers",
    class_name="AutoencoderKL",
    write=lambda config, g, hosted: vae_decoder(VaeConfig.of(config), g),
    parts=lambda config: decoder_parts(VaeConfig.of(config)),
    examples=_decoder_examples,
    outputs=lambda config: ["sample"],
    about=_preview,
)
