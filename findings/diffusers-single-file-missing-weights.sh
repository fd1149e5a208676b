#!/bin/sh
# diffusers 0.39: a single file with fewer layers than the config loads without an error if accelerate is not installed.
#
# Pruned models are such files: diffusers itself chooses SDXL's config for SSD-1B's. Here it is a VAE whose decoder has no
# attention, with the config of one that has it. One would expect an error, or at least the warning that names the missing
# weights, as `from_pretrained` does.
#
# With accelerate, `from_single_file` fails (on a meta tensor). diffusers does not require accelerate. Without it,
# `from_single_file` leaves the missing weights random, so two loads of the same file differ. diffusers logs nothing, at
# any level.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.39.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'EOF'
import importlib.util
import io
import logging

import diffusers
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

print("diffusers", diffusers.__version__, "accelerate:", importlib.util.find_spec("accelerate"))
log = io.StringIO()
diffusers.utils.logging.set_verbosity_info()
logging.getLogger("diffusers").addHandler(logging.StreamHandler(log))

vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=32)
vae.save_config("vae")
# CompVis' names, which single files have. A VAE of one block has few.
NAMES = {
    "down_blocks.0.resnets": "down.0.block",
    "up_blocks.0.resnets": "up.0.block",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "mid_block.attentions.0.to_": "mid.attn_1.",
    "conv_norm_out": "norm_out",
}
state = {}
for name, tensor in vae.state_dict().items():
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    state["first_stage_model." + name] = tensor.contiguous()
lost = [name for name in state if ".decoder.mid.attn_1." in name]
assert len(lost) == 10
for name in lost:
    del state[name]
save_file(state, "cut.safetensors")

loads = [AutoencoderKL.from_single_file("cut.safetensors", config="vae") for _ in range(2)]
first, second = (load.state_dict() for load in loads)
same = [name for name in first if torch.equal(first[name], second[name])]
differ = [name for name in first if name not in same]
print(f"{len(same)} tensors are loaded, {len(differ)} differ between two loads:", differ[0])
print("logged about it:", [line for line in log.getvalue().splitlines() if "attentions" in line or "issing" in line])
assert differ and all(name.startswith("decoder.mid_block.attentions.0.") for name in differ)
assert "attentions" not in log.getvalue() and "issing" not in log.getvalue()
EOF
