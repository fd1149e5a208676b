#!/usr/bin/env bash
# diffusers: with `negative_original_size` and two images at once, SDXL's text to image mixes up the sizes of its rows.
#
# One would expect: the batch is [unconditional images, conditional images], so the first half of `time_ids` has the
# negative sizes and the second half the positive ones. Each image then equals the one that is made alone.
# What happens: the pair (negative, positive) is repeated as a whole, so rows alternate. Of two images, the second
# unconditional row gets the positive sizes, and the first conditional row the negative ones. `text_embeds` is in the right
# order. One image gets the right sizes. The pipelines for image to image and inpainting repeat each half by itself.
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
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel


class Told(Exception):
    pass


unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(4, 8), norm_num_groups=2, cross_attention_dim=4, attention_head_dim=2,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1, addition_embed_type="text_time", addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=6 * 4 + 4,
)
vae = AutoencoderKL(block_out_channels=(4,) * 4, norm_num_groups=2,
                    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
texts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
pipeline = StableDiffusionXLPipeline(unet=unet, vae=vae, scheduler=EulerDiscreteScheduler(), **texts)


def rows(images):
    def listen(*values, added_cond_kwargs, **others):
        raise Told([int(one) for one in added_cond_kwargs["time_ids"][:, 0]])

    unet.forward = listen
    try:
        pipeline(
            prompt_embeds=torch.zeros(1, 3, 4), negative_prompt_embeds=torch.zeros(1, 3, 4),
            pooled_prompt_embeds=torch.zeros(1, 4), negative_pooled_prompt_embeds=torch.zeros(1, 4),
            num_images_per_prompt=images, original_size=(1024, 1024), negative_original_size=(100, 100),
            negative_target_size=(100, 100), num_inference_steps=1,
        )
    except Told as told:
        return told.args[0]


print("diffusers", diffusers.__version__, "torch", torch.__version__)
print("height of original_size in each row, unconditional half first")
one, two = rows(1), rows(2)
print("one image: ", one)
print("two images:", two, "; expected [100, 100, 1024, 1024]")
sys.exit(0 if (one, two) == ([100, 1024], [100, 1024, 100, 1024]) else 1)
PY
