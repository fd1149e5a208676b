"""Published architectures at full size: only names and shapes, of modules without numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from sdrt_export.architectures import ARCHITECTURES
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.checkpoints.derived.shapes import Shapes
from sdrt_export.checkpoints.derived.unet import derived_unet
from sdrt_export.checkpoints.keys.unet import unet_rows
from sdrt_export.checkpoints.kinds import kind_of_unet

XL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD2 = {
    **ARCHITECTURES["sd15"]["unet"],
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
REFINER = {
    **XL,
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (6, 12, 24, 24),
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 4,
    "projection_class_embeddings_input_dim": 2560,
}
SSD_1B = {
    **XL,
    "transformer_layers_per_block": (1, (2, 2), (4, 4)),
    "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
    "mid_block_type": "UNetMidBlock2D",
}
VEGA = {
    **XL,
    "transformer_layers_per_block": (1, (1, 1), (2, 2)),
    "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1),
    "mid_block_type": "UNetMidBlock2D",
}
# The tensors that A1111, ComfyUI and diffusers know the kinds by, and the U-Nets' published counts of tensors.
PUBLISHED: dict[str, tuple[dict[str, Any], str, int | None, dict[str, tuple[int, ...]]]] = {
    "sd15": (
        dict(ARCHITECTURES["sd15"]["unet"]),
        "Stable Diffusion 1",
        686,
        {
            "output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
            "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
            "output_blocks.5.2.conv.bias": (1280,),
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
            "middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        },
    ),
    "sd21": (
        SD2,
        "Stable Diffusion 2",
        686,
        {
            "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
            "output_blocks.11.1.transformer_blocks.0.norm1.bias": (320,),
        },
    ),
    "upscaler": (
        dict(ARCHITECTURES["x4-upscaler"]["unet"]),
        "Stable Diffusion x4 upscaler",
        None,
        {
            "input_blocks.10.0.skip_connection.bias": (1024,),
            "label_emb.weight": (1000, 1024),
            "input_blocks.0.0.weight": (256, 7, 3, 3),
        },
    ),
    "sdxl": (
        XL,
        "SDXL",
        1680,
        {
            "label_emb.0.0.weight": (1280, 2816),
            "input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
            "output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        },
    ),
    "refiner": (
        REFINER,
        "SDXL refiner",
        None,
        {
            "label_emb.0.0.weight": (1536, 2560),
            "input_blocks.8.1.transformer_blocks.3.attn2.to_k.weight": (1536, 1280),
        },
    ),
    "ssd-1b": (SSD_1B, "SDXL", None, {"middle_block.0.in_layers.0.weight": (1280,)}),
    "vega": (VEGA, "SDXL", None, {"output_blocks.0.1.transformer_blocks.1.norm1.weight": (1280,)}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_config_of_a_published_architecture(name: str) -> None:
    values, title, count, known = PUBLISHED[name]
    with torch.device("meta"):
        module = UNet2DConditionModel(**values)
    table = {row.to: row.of for row in unet_rows(UNetConfig.of(dict(module.config)))}
    shapes = {}
    for own, tensor in module.state_dict().items():
        head = own
        while head not in table:
            head = head.rpartition(".")[0]
        shapes[table[head] + own[len(head) :]] = tuple(tensor.shape)
    assert len(shapes) == len(module.state_dict())
    assert count in (None, len(shapes))
    assert {key: shapes[key] for key in known} == known
    found = Shapes(Path("model.safetensors"), "unet", shapes)
    kind = kind_of_unet(found, {f"model.diffusion_model.{key}": None for key in shapes})
    assert kind.title == title
    pooled = 1280 if kind.sizes else None
    derived = derived_unet(found, pooled=pooled, sizes=kind.sizes)
    assert UNetConfig.of(derived) == UNetConfig.of(dict(module.config))
