"""The U-Net of Stable Diffusion 1.x and 2.x, for text to image and for the tasks with more input channels."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.config import OPTIMUM
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.components.component import Component, Config, Inputs, noise
from sdrt_export.graphs.layers import Layers

__all__ = ["UNET"]


def _examples(model: UNet2DConditionModel, size: int) -> Inputs:
    batch, height, width, length = [(2, 16, 24, 77), (1, 9, 11, 5), (2, 8, 16, 77)][size]
    return {
        "sample": noise(batch, model.config.in_channels, height, width, seed=size),
        "timestep": torch.tensor([451.0, 7.0, 7.0][size]),
        "encoder_hidden_states": noise(batch, length, model.config.cross_attention_dim, seed=size + 10),
        **_label_examples(model, batch),
        **_guidance_examples(model, batch, size),
    }


def _label_examples(model: UNet2DConditionModel, batch: int) -> Inputs:
    """The noise level of each small image, if the U-Net takes it (diffusers' x4 upscaler)."""
    if model.config.num_class_embeds is None:
        return {}
    return {"class_labels": torch.arange(batch) % model.config.num_class_embeds}


def _guidance_examples(model: UNet2DConditionModel, batch: int, size: int) -> Inputs:
    """The embedded guidance scale, if the U-Net takes it (latent consistency models)."""
    width = model.config.time_cond_proj_dim
    return {} if width is None else {"timestep_cond": noise(batch, width, seed=size + 20)}


def _write(values: Config, g: Layers, hosted: bool) -> None:
    """Write the graph, if it has only inputs that this family's runtime gives."""
    config = UNetConfig.of(values)
    if config.pooled_width:
        raise UnsupportedModelError.advised(
            f"unet: addition_embed_type={values['addition_embed_type']!r} is not supported",
            f"export with {OPTIMUM}",
            joint="; ",
            component="unet",
        )
    unet(config, g)


def _reference(model: UNet2DConditionModel, inputs: Inputs) -> list[Tensor]:
    return [model(**inputs, return_dict=False)[0]]


UNET = Component(
    name="unet",
    checkpoint="unet",
    library="diffusers",
    model_class=UNet2DConditionModel,
    build=lambda config: UNet2DConditionModel.from_config(dict(config)),
    write=_write,
    examples=_examples,
    outputs=lambda model: ["out_sample"],
    reference=_reference,
)
