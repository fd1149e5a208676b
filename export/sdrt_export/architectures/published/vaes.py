"""The configs of published VAEs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.families import scaling_factors

__all__ = ["SD", "SDXL", "TINY", "TINY_XL", "X4_UPSCALER"]

SD: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": scaling_factors.SD,
}

SDXL: Mapping[str, Any] = {
    **SD,
    "sample_size": 1024,
    "scaling_factor": scaling_factors.SDXL,
    "force_upcast": True,
}

X4_UPSCALER: Mapping[str, Any] = {
    **SD,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (128, 256, 512),
    "sample_size": 256,
    "scaling_factor": scaling_factors.X4_UPSCALER,
}

TINY: Mapping[str, Any] = {
    **SD,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
}

TINY_XL: Mapping[str, Any] = {**TINY, "scaling_factor": scaling_factors.SDXL, "force_upcast": True}
