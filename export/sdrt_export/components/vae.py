"""The two halves of the VAE: images to the moments of latents, and latents to images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor, nn

from sdrt_export import channels_last
from sdrt_export.components.component import Component, Inputs, noise
from sdrt_export.preview import fit_preview
from sdrt_export.targets import Target

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


def _encoder_forward(target: Target) -> Callable[..., Any]:
    walk = channels_last.encode if target.channels_last else _encode
    return lambda model, sample: walk(model, sample.to(model.encoder.conv_in.weight.dtype)).float()


def _encode(model: AutoencoderKL, sample: Tensor) -> Tensor:
    moments: Tensor = model.encoder(sample)
    return model.quant_conv(moments) if model.quant_conv is not None else moments


def _decoder_forward(target: Target) -> Callable[..., Any]:
    walk = channels_last.decode if target.channels_last else _decode
    return lambda model, latent_sample: walk(
        model, latent_sample.to(model.decoder.conv_in.weight.dtype)
    ).float()


def _decode(model: AutoencoderKL, latent_sample: Tensor) -> Tensor:
    z = model.post_quant_conv(latent_sample) if model.post_quant_conv is not None else latent_sample
    image: Tensor = model.decoder(z)
    return image


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
    axes={"sample": {0: "batch", 2: "height", 3: "width"}},
    examples=_encoder_examples,
    outputs=lambda model: ["latent_parameters"],
    forward=_encoder_forward,
    reference=_encoder_reference,
    blocks=lambda model: model.encoder,
)

VAE_DECODER = Component(
    name="vae_decoder",
    checkpoint="vae",
    library="diffusers",
    model_class=AutoencoderKL,
    build=_build,
    axes={"latent_sample": {0: "batch", 2: "height", 3: "width"}},
    examples=_decoder_examples,
    outputs=lambda model: ["sample"],
    forward=_decoder_forward,
    reference=_decoder_reference,
    blocks=lambda model: model.decoder,
    about=lambda model: {"preview": fit_preview(model)},
)
