"""The U-Net: OpenAI's blocks (`input_blocks`, `middle_block`, `output_blocks`) are diffusers' blocks and layers."""

from __future__ import annotations

from sdrt.adapters.lora.ldm_names import FIRST, LAST, RESNET
from sdrt_export.architectures.unet_config import BlockConfig, UNetConfig
from sdrt_export.checkpoints.keys.row import Row, inside

__all__ = ["half_rows", "unet_rows"]

_FIRST, _LAST, _RESNET = ([Row(to, of) for to, of in names.items()] for names in (FIRST, LAST, RESNET))


def unet_rows(config: UNetConfig) -> list[Row]:
    """The table for a U-Net, without the prefix `model.diffusion_model.`"""
    return [*half_rows(config), *_up(config), *_LAST]


def half_rows(config: UNetConfig) -> list[Row]:
    """The table for the first half of a U-Net, up to its middle."""
    return [*_FIRST, *_down(config), *_middle(config.mid)]


def _down(config: UNetConfig) -> list[Row]:
    """Input block 0 is the first convolution. Each layer is one more, and so is each downsampling."""
    rows, place = [], 1
    for index, block in enumerate(config.down):
        for layer in range(len(block.depths)):
            rows += _layer(f"down_blocks.{index}", layer, f"input_blocks.{place}", block)
            place += 1
        if block.resamples:
            rows.append(Row(f"down_blocks.{index}.downsamplers.0.conv", f"input_blocks.{place}.0.op"))
            place += 1
    return rows


def _up(config: UNetConfig) -> list[Row]:
    """Each layer is one output block. The upsampling is the last module of a block's last layer."""
    rows, place = [], 0
    for index, block in enumerate(config.up):
        for layer in range(len(block.depths)):
            rows += _layer(f"up_blocks.{index}", layer, f"output_blocks.{place}", block)
            place += 1
        if block.resamples:
            of = f"output_blocks.{place - 1}.{2 if block.attends else 1}.conv"
            rows.append(Row(f"up_blocks.{index}.upsamplers.0.conv", of))
    return rows


def _middle(block: BlockConfig | None) -> list[Row]:
    """A resnet, and with attention a transformer and another resnet."""
    if block is None:
        return []
    first = inside("mid_block.resnets.0", "middle_block.0", _RESNET)
    if not block.attends:
        return first
    last = inside("mid_block.resnets.1", "middle_block.2", _RESNET)
    return [*first, Row("mid_block.attentions.0", "middle_block.1"), *last]


def _layer(to: str, layer: int, of: str, block: BlockConfig) -> list[Row]:
    """A resnet, and a transformer, whose inner names are the same in both."""
    resnet = inside(f"{to}.resnets.{layer}", f"{of}.0", _RESNET)
    return [*resnet, Row(f"{to}.attentions.{layer}", f"{of}.1")] if block.attends else resnet
