"""The two halves of the VAE: images to the moments of latents, and latents to images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor, nn

from sdrt_export.architectures.vae import VaeConfig, vae_decoder, vae_encoder
from sdrt_export.architectures.vae_stages import decoder_parts, encoder_parts
from sdrt_export.components.component import Component, Inputs, noise
from sdrt_export.preview import fit_preview

__all__ = ["VAE_DECODER", "VAE_ENCODER"]


def _vae_scale(model: AutoencoderKL) -> int:
    return int(2 ** (len(model.config.block_out_channels) - 1))


def _encoder_examples(model: AutoencoderKL, size: int) -> Inputs:
    batch, height, width = [(2, 6, 4), (1, 3, 5), (2, 4, 3)][size]
    scale = _vae_scale(model)
    return {"sample": noise(batch, model.config.in_channels, height * scale, width * scale, seed=size)}


def _decoder_examples(model: AutoencoderKL, size: int) -> Inputs:
    batch, height, width = [(2, 8, 6), (1, 5, 7), (2, 6, 4)][size]
    return {"latent_sample": noise(batch, model.config.latent_channels, height, width, seed=size)}


def _encoder_reference(model: AutoencoderKL, inputs: Inputs) -> list[Tensor]:
    return [model.encode(inputs["sample"]).latent_dist.parameters]


def _decoder_reference(model: AutoencoderKL, inputs: Inputs) -> list[Tensor]:
    return [model.decode(inputs["latent_sample"], return_dict=False)[0]]


def _build(config: Mapping[str, Any]) -> nn.Module:
    module: nn.Module = AutoencoderKL.from_config(dict(config))
    return module


VAE_ENCODER = Component(
    name="vae_encoder",
    checkpoint="vae",
    library="diffusers",
    model_class=AutoencoderKL,
    build=_build,
    write=lambda config, g, hosted: vae_encoder(VaeConfig.of(config), g),
    parts=lambda config: encoder_parts(VaeConfig.of(config)),
    examples=_encoder_examples,
    outputs=lambda model: ["latent_parameters"],
    reference=_encoder_reference,
)

VAE_DECODER = Component(
    name="vae_decoder",
    checkpoint="vae",
    library="diffusers",
    model_class=AutoencoderKL,
    build=_build,
    write=lambda config, g, hosted: vae_decoder(VaeConfig.of(config), g),
    parts=lambda config: decoder_parts(VaeConfig.of(config)),
    examples=_decoder_examples,
    outputs=lambda model: ["sample"],
    reference=_decoder_reference,
    about=lambda model: {"preview": fit_preview(model)},
)
