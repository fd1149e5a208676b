"""The U-Net, for text to image and for the tasks with more input channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.config import OPTIMUM
from sdrt_export.architectures.controlnet_config import residual_channels
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.components.component import Component, Config, Inputs, noise
from sdrt_export.graphs.layers import Layers

__all__ = ["UNET", "UNET_XL", "more_examples", "unet_component"]

# The sizes of an uncropped image of 1024x1024 pixels for SDXL and its refiner. The last number is a score of 6.
_TIME_IDS = {6: (1024, 1024, 0, 0, 1024, 1024), 5: (1024, 1024, 0, 0, 6)}


def unet_component(check: Callable[[Config, UNetConfig], None] = lambda values, config: None) -> Component:
    """The U-Net of a family, whose `check` refuses configs with inputs that the family's runtime does not give."""

    def write(values: Config, g: Layers, *, controlled: bool = False) -> None:
        config = UNetConfig.of(values)
        check(values, config)
        unet(config, g, controlled=controlled)

    plain = Component(
        name="unet",
        checkpoint="unet",
        library="diffusers",
        class_name="UNet2DConditionModel",
        write=lambda values, g, hosted: write(values, g),
        examples=lambda config, size: _examples(UNetConfig.of(config), size),
        outputs=lambda config: ["out_sample"],
    )
    controlled = replace(
        plain,
        write=lambda values, g, hosted: write(values, g, controlled=True),
        examples=lambda config, size: _controlled_examples(UNetConfig.of(config), size),
    )
    return replace(plain, controlled=controlled)


def _examples(config: UNetConfig, size: int) -> Inputs:
    batch, height, width, length = [(2, 16, 24, 77), (1, 9, 11, 5), (2, 8, 16, 77)][size]
    return {
        "sample": noise(batch, config.in_channels, height, width, seed=size),
        "timestep": np.array([451.0, 7.0, 7.0][size], np.float32),
        "encoder_hidden_states": noise(batch, length, config.context_width, seed=size + 10),
        **more_examples(config, batch, seed=size + 20),
    }


def _controlled_examples(config: UNetConfig, size: int) -> Inputs:
    """Example inputs with residuals, each as large as what it is added to."""
    inputs = _examples(config, size)
    batch, _, height, width = inputs["sample"].shape
    sides, sizes = (height, width), [(height, width)]
    for block in config.down:
        sizes += [sides] * len(block.depths)
        if block.resamples:
            sides = tuple((side + config.downsample_padding) // 2 for side in sides)
            sizes.append(sides)
    channels = [*residual_channels(config), config.channels[-1]]
    for index, (own, each) in enumerate(zip(channels, [*sizes, sides], strict=True)):
        is_last = index == len(sizes)
        name = "mid_block_additional_residual" if is_last else f"down_block_additional_residual_{index}"
        inputs[name] = noise(batch, own, *each, seed=size + 40 + index)
    return inputs


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
