#!/usr/bin/env bash
# diffusers: two halves of a run with Heun (`denoising_end`, `denoising_start`) do not make the image of the whole run.
#
# One would expect: with the same model for both halves, the second half continues where the first ended. Euler does so. For
# Heun, a comment in `get_timesteps` says that one more timestep is taken so that no step is cut between its two
# evaluations, and the documentation says that the ensemble works well for all schedulers.
# What happens: `denoising_end` still cuts a step in two. It keeps every timestep at the cutoff and above. Heun has all
# timesteps twice, except the first. So the last evaluation of the first half is the first evaluation of a step, after
# which the latents have the noise of that step's end. `denoising_start` then repeats that step from the noise level of
# its beginning. 10 steps are 19 evaluations in one run and 20 in two, and the latents differ. Euler's are equal bit for
# bit.
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
from diffusers import AutoencoderKL, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8,
    layers_per_block=1,
    block_out_channels=(32, 64),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=8,
    cross_attention_dim=16,
    attention_head_dim=8,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=16 + 6 * 8,
)
vae = AutoencoderKL(block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=4)
betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
embeds = {"prompt_embeds": torch.randn(1, 7, 16), "pooled_prompt_embeds": torch.randn(1, 16)}
none = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
evaluations = []
unet.register_forward_pre_hook(lambda *_: evaluations.append(1))


def run(kind, name, **part):
    scheduler = getattr(diffusers, name)(**betas)
    pipeline = kind(vae=vae, unet=unet, scheduler=scheduler, add_watermarker=False, **none)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(num_inference_steps=10, guidance_scale=1.0, output_type="latent",
                    generator=torch.Generator().manual_seed(1), **embeds, **part).images


print("diffusers", diffusers.__version__, "torch", torch.__version__)
seen = {}
for name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler"):
    counts = []
    whole = run(StableDiffusionXLPipeline, name)
    counts.append(len(evaluations))
    evaluations.clear()
    half = run(StableDiffusionXLPipeline, name, denoising_end=0.5)
    both = run(StableDiffusionXLImg2ImgPipeline, name, image=half, denoising_start=0.5)
    counts.append(len(evaluations))
    evaluations.clear()
    difference = float((whole - both).abs().max() / whole.std())
    print(f"{name}: {counts[0]} evaluations in one run, {counts[1]} in two; the largest difference is {difference:.3g} "
          "of the standard deviation")
    seen[name] = (counts, difference)
(euler, same), (heun, off) = seen.values()
sys.exit(0 if euler == [10, 10] and same == 0 and heun == [19, 20] and off > 0.01 else 1)
PY
