#!/usr/bin/env bash
# diffusers: with several prompts and several images of each, images of a T2I-Adapter follow another prompt's control image.
#
# One would expect: of two prompts with a control image each and `num_images_per_prompt=2`, the first two images follow the
# first control image, and the last two the second one, as the prompts and as ControlNets' images do.
# What happens: the pipeline repeats the prompts one by one (1, 1, 2, 2), but the adapter's features as a whole (1, 2, 1, 2),
# in `StableDiffusionAdapterPipeline` and in that for SDXL. The second image has the first prompt and the second control
# image. Below, all four images have the same prompt and noise, so they differ only by what they were guided with.
#
# Exits with 1 when the behaviour changes. Downloads torch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  diffusers==0.39.0 torch==2.13.0 numpy==2.2.6 pillow==12.0.0 transformers==4.57.6
"$work/venv/bin/python" - <<'PY' 2>/dev/null
import sys

import diffusers
import torch

torch.manual_seed(0)
unet = diffusers.UNet2DConditionModel(
    block_out_channels=(8, 16),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    cross_attention_dim=8,
    attention_head_dim=2,
    norm_num_groups=4,
)
vae = diffusers.AutoencoderKL(
    block_out_channels=(4, 8),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    norm_num_groups=4,
)
pipeline = diffusers.StableDiffusionAdapterPipeline(
    vae=vae,
    text_encoder=None,
    tokenizer=None,
    unet=unet,
    adapter=diffusers.T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=2),
    scheduler=diffusers.DDIMScheduler(),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
)
pipeline.set_progress_bar_config(disable=True)
noise = torch.randn(1, 4, 8, 8)
images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])


def made(control: torch.Tensor, count: int) -> torch.Tensor:
    return pipeline(
        image=control,
        prompt_embeds=torch.ones(len(control), 4, 8),
        num_images_per_prompt=count,
        latents=noise.expand(len(control) * count, -1, -1, -1),
        height=16,
        width=16,
        guidance_scale=1.0,
        num_inference_steps=2,
        output_type="latent",
    ).images


first, second = (made(one[None], 1)[0] for one in images)
follows = [
    1 if float((one - first).abs().max()) < 1e-4 else 2 if float((one - second).abs().max()) < 1e-4 else 0
    for one in made(images, 2)
]
print("diffusers", diffusers.__version__, "torch", torch.__version__)
print("prompts of the images:        [1, 1, 2, 2]")
print("control images they follow:  ", follows)
sys.exit(0 if follows == [1, 2, 1, 2] else 1)
PY
