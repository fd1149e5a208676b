"""The VAE. CompVis numbers the decoder's blocks from the finest on, diffusers from the coarsest."""

from __future__ import annotations

from sdrt_export.architectures.vae import VaeConfig
from sdrt_export.checkpoints.keys.row import LINEAR, Row, inside

__all__ = ["old_vae_rows", "vae_rows"]

_OUTER = [
    Row("quant_conv", "quant_conv"),
    Row("post_quant_conv", "post_quant_conv"),
]
_RESNET = [
    *(Row(name, name) for name in ("norm1", "conv1", "norm2", "conv2")),
    Row("conv_shortcut", "nin_shortcut"),
]
_GROUP_NORM = Row("group_norm", "norm")
# Newer programs mix diffusers' names of the attention, from before 0.17 or later, with CompVis' other names.
_ATTENTION = [
    (to, of)
    for to, names in {
        "to_q": ("q", "query", "to_q"),
        "to_k": ("k", "key", "to_k"),
        "to_v": ("v", "value", "to_v"),
        "to_out.0": ("proj_out", "proj_attn", "to_out.0"),
    }.items()
    for of in names
]
_HALVES = ("encoder", "decoder")


def vae_rows(config: VaeConfig) -> list[Row]:
    """The table for a VAE, without the prefix `first_stage_model.`"""
    rows = [*_OUTER]
    for half in _HALVES:
        rows += [Row(f"{half}.{name}", f"{half}.{name}") for name in ("conv_in", "conv_out")]
        rows.append(Row(f"{half}.conv_norm_out", f"{half}.norm_out"))
        for index in (0, 1):
            rows += inside(f"{half}.mid_block.resnets.{index}", f"{half}.mid.block_{index + 1}", _RESNET)
        rows += _attention(half, f"{half}.mid.attn_1", [_GROUP_NORM, Row("group_norm", "group_norm")])
    return rows + _down(config) + _up(config)


def old_vae_rows() -> list[Row]:
    """The table for a VAE in diffusers' names, where the attention's may be those from before 0.17."""
    rows = [*_OUTER, *(Row(half, half) for half in _HALVES)]
    for half in _HALVES:
        rows += _attention(half, f"{half}.mid_block.attentions.0", [])
    return rows


def _attention(half: str, of: str, others: list[Row]) -> list[Row]:
    """The rows of an attention. Each weight becomes a matrix; each bias stays a vector."""
    rows = [Row(f"{to}.weight", f"{name}.weight", LINEAR) for to, name in _ATTENTION]
    rows += [Row(f"{to}.bias", f"{name}.bias") for to, name in _ATTENTION]
    return inside(f"{half}.mid_block.attentions.0", of, [*rows, *others])


def _down(config: VaeConfig) -> list[Row]:
    rows = []
    for index in range(len(config.channels)):
        to, of = f"encoder.down_blocks.{index}", f"encoder.down.{index}"
        for layer in range(config.layers):
            rows += inside(f"{to}.resnets.{layer}", f"{of}.block.{layer}", _RESNET)
        rows.append(Row(f"{to}.downsamplers.0.conv", f"{of}.downsample.conv"))
    return rows


def _up(config: VaeConfig) -> list[Row]:
    rows, count = [], len(config.channels)
    for index in range(count):
        to, of = f"decoder.up_blocks.{index}", f"decoder.up.{count - 1 - index}"
        for layer in range(config.layers + 1):
            rows += inside(f"{to}.resnets.{layer}", f"{of}.block.{layer}", _RESNET)
        rows.append(Row(f"{to}.upsamplers.0.conv", f"{of}.upsample.conv"))
    return rows
