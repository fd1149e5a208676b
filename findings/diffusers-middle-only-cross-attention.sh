#!/usr/bin/env bash
# diffusers: `only_cross_attention` does not reach the usual middle block of a U-Net.
#
# One would expect: UNet2DConditionModel documents that `only_cross_attention=True` holds for the middle block too, unless
# `mid_block_only_cross_attention` says otherwise. So the first attention of every transformer reads the text, and its
# `to_k` is as wide as the text's embeddings.
# What happens: the down and up blocks do so. The middle block, UNetMidBlock2DCrossAttn, which is the default, never gets
# either setting: with any value of both, its first attention reads the pixels. Only UNetMidBlock2DSimpleCrossAttn gets
# them. A program that builds the network from its documented config gets other shapes than those of the weights.
#
# Exits with 1 when the behaviour changes. Downloads torch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  diffusers==0.39.0 transformers==4.57.3 torch==2.13.0 numpy==2.2.6
"$work/venv/bin/python" - 2>/dev/null <<'PY'
import sys

import diffusers
import torch
from diffusers import UNet2DConditionModel

CHANNELS, TEXT = (4, 8), 6
small = {"block_out_channels": CHANNELS, "norm_num_groups": 2, "attention_head_dim": 2, "layers_per_block": 1}
blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
print("diffusers", diffusers.__version__, "torch", torch.__version__)
seen = []
for settings in ({}, {"only_cross_attention": True}, {"mid_block_only_cross_attention": True}):
    unet = UNet2DConditionModel(cross_attention_dim=TEXT, **small, **blocks, **settings)
    widths = {
        name: block.attentions[0].transformer_blocks[0].attn1.to_k.in_features
        for name, block in (("down", unet.down_blocks[0]), ("middle", unet.mid_block), ("up", unet.up_blocks[1]))
    }
    print(settings, "the first attention's keys read", widths, "numbers; the text has", TEXT)
    seen.append(tuple(widths.values()))
sys.exit(0 if seen == [(4, 8, 4), (TEXT, 8, TEXT), (4, 8, 4)] else 1)
PY
