#!/usr/bin/env bash
# diffusers: a U-Net whose `sample_size` is a pair makes images from text, but not from an image.
#
# One would expect: UNet2DConditionModel documents `sample_size` as a number or a pair (height, width), and
# StableDiffusionPipeline takes both. StableDiffusionImg2ImgPipeline and StableDiffusionInpaintPipeline do not even use the
# key when they are made, so they take both, too.
# What happens: both fail with "TypeError: '<' not supported between instances of 'tuple' and 'int'". Their constructors
# compare the key with 64 for configs from before diffusers 0.9, also when the config is newer.
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

small = {"block_out_channels": (4, 8), "norm_num_groups": 2, "cross_attention_dim": 4, "attention_head_dim": 2}
blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
unet = UNet2DConditionModel(sample_size=(64, 96), layers_per_block=1, **small, **blocks)
others = dict.fromkeys(("vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor"))
print("diffusers", diffusers.__version__, "torch", torch.__version__)
seen = []
for name in ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"):
    try:
        getattr(diffusers, name)(unet=unet, requires_safety_checker=False, **others)
        seen.append("made")
    except TypeError as error:
        seen.append("TypeError")
        print(f"{name}: {error}")
    else:
        print(f"{name}: made")
sys.exit(0 if seen == ["made", "TypeError", "TypeError"] else 1)
PY
