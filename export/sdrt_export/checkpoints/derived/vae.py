"""The config of a VAE in CompVis' or diffusers' names, from the shapes of its tensors."""

from __future__ import annotations

from typing import Any

from sdrt_export.checkpoints.derived.shapes import CONFIG_REMEDY, Shapes

__all__ = ["derived_vae", "is_diffusers_vae"]

_GROUPS = 32
_BLOCKS, _DIFFUSERS_BLOCKS = "encoder.down.{}.block.", "encoder.down_blocks.{}.resnets."


def is_diffusers_vae(shapes: Shapes) -> bool:
    """Whether the names are diffusers'."""
    return "encoder.down_blocks.0.resnets.0.norm1.weight" in shapes


def derived_vae(shapes: Shapes) -> dict[str, Any]:
    """The config, as diffusers has it, without `scaling_factor` and `sample_size`, which the tensors do not show.

    Raises:
        UnsupportedModelError: a tensor is missing, or no config can describe the blocks.
    """
    theirs = is_diffusers_vae(shapes)
    pattern = _DIFFUSERS_BLOCKS if theirs else _BLOCKS
    middle = "encoder.mid_block.attentions.0.group_norm" if theirs else "encoder.mid.attn_1.norm"
    attends = f"{middle}.weight" in shapes or "encoder.mid.attn_1.group_norm.weight" in shapes
    channels, layers = _blocks(shapes, pattern)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "force_upcast": True,
        "in_channels": shapes.of("encoder.conv_in.weight", 4)[1],
        "latent_channels": shapes.of("decoder.conv_in.weight", 4)[1],
        "latents_mean": None,
        "latents_std": None,
        "layers_per_block": layers,
        "mid_block_add_attention": attends,
        "norm_num_groups": _GROUPS,
        "out_channels": shapes.of("decoder.conv_out.weight", 4)[0],
        "shift_factor": None,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "use_quant_conv": "quant_conv.weight" in shapes,
    }


def _blocks(shapes: Shapes, pattern: str) -> tuple[list[int], int]:
    """The channels of the encoder's blocks, and how many resnets each has."""
    counts: list[int] = []
    channels: list[int] = []
    while count := shapes.counted(pattern.format(len(counts)) + "{}.norm1.weight"):
        first = pattern.format(len(counts)) + "0.conv1.weight"
        channels.append(shapes.of(first, 4)[0])
        counts.append(count)
    if not counts or len(set(counts)) > 1:
        raise shapes.refused(f"has blocks of {counts} layers", "as many in each")
    if any(each % _GROUPS for each in channels):
        raise shapes.refused(
            f"has blocks of {channels} channels", f"multiples of {_GROUPS}; for others, {CONFIG_REMEDY}"
        )
    return channels, counts[0]
