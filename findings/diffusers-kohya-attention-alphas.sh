#!/usr/bin/env bash
# diffusers 0.42.1 with PEFT 0.21.2: load_lora_weights of a kohya file whose layers have alphas of their own.
#
# kohya's trainer writes an alpha for each layer, and a layer's strength is alpha / rank. Files whose layers have
# different alphas come from training with alphas by block, and from merging and resizing tools. One would expect each
# layer to get its own.
#
# Attention layers (to_q, to_k, to_v, to_out) all get the alpha that is most frequent in the file. The others get their
# own. diffusers looks for the attention's alphas under names such as `attn1.processor.to_q_lora.down.weight`, which no
# layer has. Only a warning of PEFT about the names says so. With one alpha in the whole file nothing shows.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 accelerate safetensors
cd "$folder"
cat >check.py <<'PY'
import diffusers
import peft
import torch
from safetensors.torch import save_file

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0."
RANK = 4
ALPHAS = {
    f"{BLOCK}attn1.to_q": 1.0,
    f"{BLOCK}attn1.to_k": 2.0,
    f"{BLOCK}attn1.to_v": 4.0,
    f"{BLOCK}attn1.to_out.0": 4.0,
    f"{BLOCK}ff.net.2": 8.0,
}
unet = diffusers.UNet2DConditionModel(
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=8,
    attention_head_dim=4,
    norm_num_groups=4,
)
nothing = dict.fromkeys(("vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor"))
pipeline = diffusers.StableDiffusionPipeline(unet=unet, **nothing, requires_safety_checker=False)
tensors = {}
for name, alpha in ALPHAS.items():
    layer, key = unet.get_submodule(name), "lora_unet_" + name.replace(".", "_")
    tensors[f"{key}.lora_up.weight"] = torch.ones(layer.out_features, RANK)
    tensors[f"{key}.lora_down.weight"] = torch.ones(RANK, layer.in_features)
    tensors[f"{key}.alpha"] = torch.tensor(alpha)
save_file(tensors, "kohya.safetensors")
pipeline.load_lora_weights(".", weight_name="kohya.safetensors")

print("diffusers", diffusers.__version__, "peft", peft.__version__)
seen = {}
for name, alpha in ALPHAS.items():
    (seen[name],) = unet.get_submodule(name).scaling.values()
    print(f"{name.removeprefix(BLOCK):14} alpha / rank is {alpha / RANK}, applied {seen[name]}")
expected = {name: 1.0 if "attn" in name else alpha / RANK for name, alpha in ALPHAS.items()}
assert seen == expected, "the behaviour has changed"
PY
venv/bin/python check.py 2>/dev/null
