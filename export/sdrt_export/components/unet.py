"""The U-Net of Stable Diffusion 1.x and 2.x, for text to image and for the tasks with more input channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sdrt.errors import UnsupportedModelError
from sdrt_export import channels_last
from sdrt_export.components.component import Component, Inputs, noise
from sdrt_export.targets import OPTIMUM, Target

__all__ = ["UNET"]


def _examples(model: UNet2DConditionModel, size: int) -> Inputs:
    batch, height, width, length = [(2, 16, 24, 77), (1, 9, 11, 5), (2, 8, 16, 77)][size]
    return {
        "sample": noise(batch, model.config.in_channels, height, width, seed=size),
        "timestep": torch.tensor([451.0, 7.0, 7.0][size]),
        "encoder_hidden_states": noise(batch, length, model.config.cross_attention_dim, seed=size + 10),
        **_label_examples(model, batch),
    }


def _label_examples(model: UNet2DConditionModel, batch: int) -> Inputs:
    """The noise level of each small image, if the U-Net takes it (diffusers' x4 upscaler)."""
    if model.config.num_class_embeds is None:
        return {}
    return {"class_labels": torch.arange(batch) % model.config.num_class_embeds}


def _check(model: UNet2DConditionModel) -> None:
    for key in (
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim_type",
        "time_cond_proj_dim",
        "class_embeddings_concat",
    ):
        if model.config.get(key):
            raise UnsupportedModelError.advised(
                f"unet: {key}={model.config[key]!r} is not supported",
                f"export with {OPTIMUM}",
                joint="; ",
                component="unet",
            )


def _forward(target: Target) -> Callable[..., Any]:
    walk = channels_last.unet if target.channels_last else _blocks

    def forward(
        model: UNet2DConditionModel,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        dtype = model.conv_in.weight.dtype
        sample, context = sample.to(dtype), encoder_hidden_states.to(dtype)
        x = 2 * sample - 1.0 if model.config.center_input_sample else sample
        temb = model.time_embedding(model.get_time_embed(sample=x, timestep=timestep))
        if class_labels is not None:
            temb = temb + model.class_embedding(class_labels)
        temb = model.time_embed_act(temb) if model.time_embed_act is not None else temb
        return walk(model, x, temb, context).float()

    return forward


def _blocks(model: UNet2DConditionModel, x: Tensor, temb: Tensor, context: Tensor) -> Tensor:
    """Run diffusers' blocks one after the other. Fused blocks have other forwards while tracing."""
    x = model.conv_in(x)
    skips = [x]
    for block in model.down_blocks:
        x, states = block(x, temb, **_context(block, context))
        skips.extend(states)
    if model.mid_block is not None:
        x = model.mid_block(x, temb, **_context(model.mid_block, context))
    for block in model.up_blocks:
        count = len(block.resnets)
        mine, skips = tuple(skips[-count:]), skips[:-count]
        # diffusers passes this for some sizes only. Always passing it makes one graph for all sizes.
        size = skips[-1].shape[2:] if skips else None
        x = block(x, mine, temb, upsample_size=size, **_context(block, context))
    if model.conv_norm_out is not None:
        x = model.conv_act(model.conv_norm_out(x))
    out: Tensor = model.conv_out(x)
    return out


def _context(block: nn.Module, encoder_hidden_states: Tensor) -> dict[str, Tensor]:
    if getattr(block, "has_cross_attention", False):
        return {"encoder_hidden_states": encoder_hidden_states}
    return {}


def _reference(model: UNet2DConditionModel, inputs: Inputs) -> list[Tensor]:
    return [model(**inputs, return_dict=False)[0]]


UNET = Component(
    name="unet",
    checkpoint="unet",
    library="diffusers",
    model_class=UNet2DConditionModel,
    build=lambda config: UNet2DConditionModel.from_config(dict(config)),
    axes={
        "sample": {0: "batch", 2: "height", 3: "width"},
        "timestep": {},
        "encoder_hidden_states": {0: "batch", 1: "sequence"},
        "class_labels": {0: "batch"},
    },
    examples=_examples,
    outputs=lambda model: ["out_sample"],
    forward=_forward,
    reference=_reference,
    check=_check,
    blocks=lambda model: model,
)
