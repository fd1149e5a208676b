#!/usr/bin/env bash
# transformers: a textual inversion moves the pooled output of SDXL's text encoders from the text's end to the new word.
#
# One would expect: CLIP's pooled output is the state of the end token, wherever new words are in the text.
# What happens: for configs with `eos_token_id` 2, such as those of SDXL's checkpoints, CLIPTextModel takes the position of
# the largest id for the end. Words that diffusers' `load_textual_inversion` adds have ids above the end token's. So the
# pooled output, which SDXL's U-Net gets as `text_embeds`, is that of the first new word. Text after the word has no
# effect on it.
#
# Exits with 1 when the behaviour changes. Downloads torch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==4.57.3 torch==2.13.0 numpy==2.2.6
"$work/venv/bin/python" - 2>/dev/null <<'PY'
import sys

import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

END, NEW = 99, 100
torch.manual_seed(0)
found = {}
for eos in (2, END):
    config = CLIPTextConfig(vocab_size=100, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                            num_attention_heads=2, projection_dim=8, bos_token_id=98, eos_token_id=eos)
    model = CLIPTextModelWithProjection(config).eval()
    model.resize_token_embeddings(101)
    with torch.no_grad():
        for name, word in (("a usual word", 5), ("a new word", NEW)):
            texts = torch.tensor([[98, word, 7, END], [98, word, 8, END]])
            pooled = model(texts).text_embeds
            found[eos, name] = bool((pooled[0] - pooled[1]).abs().max() > 1e-6)
print("transformers", transformers.__version__, "torch", torch.__version__)
for (eos, name), sees in found.items():
    print(f"eos_token_id {eos}, {name}: what follows it {'changes' if sees else 'does not change'} the pooled output")
sys.exit(0 if found[2, "a usual word"] and not found[2, "a new word"] and found[END, "a new word"] else 1)
PY
