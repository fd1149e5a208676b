"""The U-Net, for text to image and for the tasks with more input channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.graph_kind import NO_MORE, MoreInputs
from sdrt_export.architectures.config import OPTIMUM
from sdrt_export.architectures.controlnet_config import residual_channels
from sdrt_export.architectures.image_prompts import image_prompt_layers, image_prompt_levels
from sdrt_export.architectures.unet import feature_places, unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.components.component import Component, Config, Inputs, noise
from sdrt_export.graphs.layers import Layers

__all__ = ["UNET", "UNET_XL", "more_examples", "unet_component"]

# The sizes of an uncropped image of 1024x1024 pixels for SDXL and its refiner. The last number is a score of 6.
_TIME_IDS = {6: (1024, 1024, 0, 0, 1024, 1024), 5: (1024, 1024, 0, 0, 6)}


def unet_component(check: Callable[[Config, UNetConfig], None] = lambda values, config: None) -> Component:
    """The U-Net of a family, whose `check` refuses configs with inputs that the family's runtime does not give."""

    def write(values: Config, g: Layers, more: MoreInputs) -> None:
        config = UNetConfig.of(values)
        check(values, config)
        unet(config, g, more)

    plain = Component(
        name="unet",
        checkpoint="unet",
        library="diffusers",
        class_name="UNet2DConditionModel",
        write=lambda values, g, hosted: write(values, g, NO_MORE),
        examples=lambda config, size: _examples(UNetConfig.of(config), size),
        outputs=lambda config: ["out_sample"],
    )

    def extended(more: MoreInputs) -> Component:
        return replace(
            plain,
            write=lambda values, g, hosted: write(values, g, more),
            examples=lambda config, size: _extended_examples(UNetConfig.of(config), more, size),
        )

    return replace(plain, extended=extended)


def _examples(config: UNetConfig, size: int) -> Inputs:
    batch, height, width, length = [(2, 16, 24, 77), (1, 9, 11, 5), (2, 8, 16, 77)][size]
    return {
        "sample": noise(batch, config.in_channels, height, width, seed=size),
        "timestep": np.array([451.0, 7.0, 7.0][size], np.float32),
        "encoder_hidden_states": noise(batch, length, config.context_width, seed=size + 10),
        **more_examples(config, batch, seed=size + 20),
    }


def _extended_examples(config: UNetConfig, more: MoreInputs, size: int) -> Inputs:
    """Example inputs with `more` of them."""
    inputs = _examples(config, size)
    batch, _, height, width = inputs["sample"].shape
    if more.residuals:
        inputs |= _residual_examples(config, (batch, height, width), seed=size + 40)
    if more.features:
        inputs |= _feature_examples(config, (batch, height, width), seed=size + 60)
    layers = len(image_prompt_layers(config))
    for number, one in enumerate(more.images):
        inputs[f"image_tokens_{number}"] = noise(batch, 4, one.width, seed=size + 80 + number)
        inputs[f"image_scales_{number}"] = np.linspace(0.5, 1, layers, dtype=np.float32)
        for level in image_prompt_levels(config) if one.masked else ():
            pixels = math.ceil(height / 2**level) * math.ceil(width / 2**level)
            inputs[f"image_mask_{number}_{level}"] = np.full((1, pixels, 1), 0.5, np.float32)
    return inputs


def _residual_examples(config: UNetConfig, shape: tuple[int, int, int], seed: int) -> Inputs:
    """Residuals for latents of this batch, height and width, each as large as what it is added to."""
    batch, height, width = shape
    sizes = [(height, width)]
    for block in config.down:
        sizes += [sizes[-1]] * len(block.depths)
        if block.resamples:
            height, width = ((side + config.downsample_padding) // 2 for side in sizes[-1])
            sizes.append((height, width))
    channels = [*residual_channels(config), config.channels[-1]]
    made = {}
    for index, (own, each) in enumerate(zip(channels, [*sizes, sizes[-1]], strict=True)):
        is_last = index == len(sizes)
        name = "mid_block_additional_residual" if is_last else f"down_block_additional_residual_{index}"
        made[name] = noise(batch, own, *each, seed=seed + index)
    return made


def _feature_examples(config: UNetConfig, shape: tuple[int, int, int], seed: int) -> Inputs:
    """Features of T2I-Adapters for latents of this batch, height and width."""
    batch, *size = shape
    made = {}
    for index, (channels, halvings) in enumerate(feature_places(config)):
        sides = size
        for _ in range(halvings):
            sides = [(side + config.downsample_padding) // 2 for side in sides]
        place = "mid" if index == len(config.down) else "down"
        name = f"{place}_intrablock_additional_residual"
        made[name if place == "mid" else f"{name}_{index}"] = noise(
            batch, channels, *sides, seed=seed + index
        )
    return made


def more_examples(config: UNetConfig, batch: int, seed: int) -> Inputs:
    """The inputs that not every U-Net has."""
    inputs: Inputs = {}
    if config.num_class_embeds:
        # The noise level of each small image (diffusers' x4 upscaler).
        inputs["class_labels"] = np.arange(batch, dtype=np.int64) % config.num_class_embeds
    if config.pooled_width:
        inputs["text_embeds"] = noise(batch, config.pooled_width, seed=seed)
        inputs["time_ids"] = np.tile(np.array(_TIME_IDS[config.num_time_ids], np.float32), (batch, 1))
    if config.guidance_width:
        inputs["timestep_cond"] = noise(batch, config.guidance_width, seed=seed + 10)
    return inputs


def _check(values: Config, config: UNetConfig) -> None:
    """Refuse the inputs that Stable Diffusion 1 and 2 do not have."""
    if config.added_width:
        raise _refused(values, "addition_embed_type")


def _check_xl(values: Config, config: UNetConfig) -> None:
    """Refuse the inputs that SDXL does not have, and a U-Net that lacks its own."""
    if not config.added_width:
        raise _refused(values, "addition_embed_type")
    if config.num_class_embeds:
        raise _refused(values, "num_class_embeds")


def _refused(values: Config, key: str) -> UnsupportedModelError:
    return UnsupportedModelError.advised(
        f"unet: {key}={values.get(key)!r} is not supported",
        f"export with {OPTIMUM}",
        joint="; ",
        component="unet",
    )


UNET = unet_component(_check)
UNET_XL = unet_component(_check_xl)
