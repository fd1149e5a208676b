"""The configs of published U-Nets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BK_SDM_BASE",
    "BK_SDM_SMALL",
    "BK_SDM_TINY",
    "SD1",
    "SD2",
    "SDXL",
    "SDXL_REFINER",
    "SEGMIND_VEGA",
    "SSD_1B",
    "TINY",
    "TINY_XL",
    "X4_UPSCALER",
]

_DOWN, _CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
_UP, _CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"

SD1: Mapping[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (_CROSS_DOWN,) * 3 + (_DOWN,),
    "up_block_types": (_UP,) + (_CROSS_UP,) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "act_fn": "silu",
}

SD2: Mapping[str, Any] = {
    **SD1,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}

X4_UPSCALER: Mapping[str, Any] = {
    **SD1,
    "sample_size": 128,
    "in_channels": 7,
    "down_block_types": (_DOWN,) + (_CROSS_DOWN,) * 3,
    "up_block_types": (_CROSS_UP,) * 3 + (_UP,),
    "block_out_channels": (256, 512, 512, 1024),
    "cross_attention_dim": 1024,
    "only_cross_attention": (True, True, True, False),
    "use_linear_projection": True,
    "num_class_embeds": 1000,
}
"""The upscaler has self-attention only at the coarsest level, because its cost would limit the size of images."""

SDXL: Mapping[str, Any] = {
    **SD1,
    "sample_size": 128,
    "down_block_types": (_DOWN, _CROSS_DOWN, _CROSS_DOWN),
    "up_block_types": (_CROSS_UP, _CROSS_UP, _UP),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

SDXL_REFINER: Mapping[str, Any] = {
    **SDXL,
    "down_block_types": (_DOWN, _CROSS_DOWN, _CROSS_DOWN, _DOWN),
    "up_block_types": (_UP, _CROSS_UP, _CROSS_UP, _UP),
    "block_out_channels": (384, 768, 1536, 1536),
    "transformer_layers_per_block": 4,
    "cross_attention_dim": 1280,
    "attention_head_dim": (6, 12, 24, 24),
    "projection_class_embeddings_input_dim": 2560,
}

# Segmind's models leave out transformers of SDXL, and attention in the middle (Gupta et al. 2024, arXiv:2401.02677).
SSD_1B: Mapping[str, Any] = {
    **SDXL,
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": (1, (2, 2), (4, 4)),
    "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
}

SEGMIND_VEGA: Mapping[str, Any] = {
    **SDXL,
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": (1, (1, 1), (2, 2)),
    "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1),
}

# BK-SDM removes one layer of each block, then the middle, then the coarsest level (Kim et al. 2023, arXiv:2305.15798).
BK_SDM_BASE: Mapping[str, Any] = {**SD1, "layers_per_block": 1}

BK_SDM_SMALL: Mapping[str, Any] = {**BK_SDM_BASE, "mid_block_type": None}

BK_SDM_TINY: Mapping[str, Any] = {
    **BK_SDM_SMALL,
    "down_block_types": (_CROSS_DOWN,) * 3,
    "up_block_types": (_CROSS_UP,) * 3,
    "block_out_channels": (320, 640, 1280),
}

TINY: Mapping[str, Any] = {
    **SD1,
    "sample_size": 8,
    "down_block_types": (_CROSS_DOWN, _DOWN),
    "up_block_types": (_UP, _CROSS_UP),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}

TINY_XL: Mapping[str, Any] = {
    **SDXL,
    "sample_size": 8,
    "down_block_types": (_DOWN, _CROSS_DOWN),
    "up_block_types": (_CROSS_UP, _UP),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 2),
    "cross_attention_dim": 96,
    "attention_head_dim": (2, 4),
    "norm_num_groups": 4,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64 + 6 * 8,
}
