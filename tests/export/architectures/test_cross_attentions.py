"""The runtime and the exporter count the layers that see images alike, whatever a config says."""

from __future__ import annotations

from typing import Any

import pytest

from sdrt.families.cross_attentions import cross_attentions
from sdrt_export.architectures import ARCHITECTURES
from sdrt_export.architectures.image_prompts import image_prompt_layers
from sdrt_export.architectures.unet_config import UNetConfig

KEYS = ("down_block_types", "up_block_types", "block_out_channels")
SMALL: dict[str, Any] = {
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [32, 64, 64],
    "cross_attention_dim": 32,
}
CONFIGS: dict[str, dict[str, Any]] = {
    **{name: row["unet"] for name, row in ARCHITECTURES.items() if "unet" in row},
    "defaults": {},
    "uneven": SMALL | {"layers_per_block": [1, 2, 3], "transformer_layers_per_block": [2, 1, 4]},
    "no middle": SMALL | {"mid_block_type": None, "layers_per_block": 1},
    "nested": SMALL
    | {
        "layers_per_block": 2,
        "transformer_layers_per_block": [[1, 0], [1, 1], [3, 2]],
        "reverse_transformer_layers_per_block": [[2, 1, 0], 1, [1, 2, 3]],
    },
}


def as_diffusers_names(path: str) -> str:
    """The place of a layer such as down_blocks.1.attentions.0.transformer_blocks.0.attn2."""
    parts = path.split(".")
    if parts[0] == "mid_block":
        return "mid"
    return f"{parts[0].removesuffix('_blocks')}.block_{parts[1]}.{parts[3]}"


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_those_of_the_graph(name: str) -> None:
    config = CONFIGS[name]
    expected = [as_diffusers_names(path) for path in image_prompt_layers(UNetConfig.of(config))]
    assert list(cross_attentions(config)) == expected
