"""A ControlNet: the names of lllyasviel's program, which are those of CompVis' U-Net and its own."""

from __future__ import annotations

from sdrt_export.architectures.controlnet_config import ControlNetConfig
from sdrt_export.checkpoints.keys.row import Row
from sdrt_export.checkpoints.keys.unet import half_rows

__all__ = ["controlnet_rows", "diffusers_controlnet_rows"]

_CONDITION = "controlnet_cond_embedding"


def controlnet_rows(config: ControlNetConfig) -> list[Row]:
    """The table for a ControlNet, without the prefix `control_model.`"""
    rows = half_rows(config.unet)
    # Between two convolutions of the control image there is an activation, which has a number too.
    convolutions = 2 * len(config.embedding) - 2
    rows.append(Row(f"{_CONDITION}.conv_in", "input_hint_block.0"))
    rows += [Row(f"{_CONDITION}.blocks.{i}", f"input_hint_block.{2 * i + 2}") for i in range(convolutions)]
    rows.append(Row(f"{_CONDITION}.conv_out", f"input_hint_block.{2 * convolutions + 2}"))
    rows += [Row(f"controlnet_down_blocks.{i}", f"zero_convs.{i}.0") for i in range(len(config.residuals))]
    return [*rows, Row("controlnet_mid_block", "middle_block_out.0")]


def diffusers_controlnet_rows() -> list[Row]:
    """The table for a ControlNet in diffusers' names."""
    modules = (
        *("conv_in", "time_embedding", "class_embedding", "add_embedding", "down_blocks", "mid_block"),
        *(_CONDITION, "controlnet_down_blocks", "controlnet_mid_block"),
    )
    return [Row(name, name) for name in modules]
