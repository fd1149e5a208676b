"""Tiny IP-Adapters with random weights, in the layout of h94's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection, IPAdapterPlusImageProjection
from safetensors.torch import save_file

from tests.parity.checkpoints import randomise

__all__ = ["EMBEDS", "PATCH", "adapter_file", "attention_channels", "image_encoder_folder"]

EMBEDS, PATCH = 20, 24
"""The widths of the image's embedding and of its patches' tokens."""


def attention_channels(unet: Any) -> list[int]:
    """The channels of each cross-attention, in the order in which diffusers sets the adapters' weights."""
    modules = dict(unet.named_modules())
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return [modules[name].inner_dim for name in names if name.endswith("attn2")]


def adapter_file(path: Path, unet: Any, kind: str, seed: int) -> Path:
    """Write an adapter of the `kind` "base", "plus" or "plus of diffusers" for diffusers' `unet`."""
    width = unet.config.cross_attention_dim
    tensors = _base(width, seed) if kind == "base" else _plus(width, seed, renamed=kind == "plus")
    tensors = {f"image_proj.{name}": tensor for name, tensor in tensors.items()}
    generator = torch.Generator().manual_seed(seed)
    for index, channels in enumerate(attention_channels(unet)):
        for letter in "kv":
            weight = torch.randn((channels, width), generator=generator) / width**0.5
            tensors[f"ip_adapter.{2 * index + 1}.to_{letter}_ip.weight"] = weight
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def _base(width: int, seed: int) -> dict[str, torch.Tensor]:
    module = randomise(ImageProjection(EMBEDS, width, num_image_text_embeds=4), seed)
    return {name.replace("image_embeds", "proj"): tensor for name, tensor in module.state_dict().items()}


def _plus(width: int, seed: int, *, renamed: bool) -> dict[str, torch.Tensor]:
    module = randomise(
        IPAdapterPlusImageProjection(
            embed_dims=PATCH, output_dims=width, hidden_dims=40, heads=2, num_queries=5
        ),
        seed,
    )
    state = module.state_dict()
    if not renamed:
        # As diffusers' loader expects it, which adds the number again.
        return {name.replace("to_out.0.", "to_out."): tensor for name, tensor in state.items()}
    names = {"ln0": "0.norm1", "ln1": "0.norm2", "attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out"}
    names |= {"ff.0": "1.0", "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3"}
    made = {}
    for name, tensor in state.items():
        head, _, rest = name.partition(".attn.to_k.")
        if rest:
            made[f"{head}.0.to_kv.{rest}"] = torch.cat([tensor, state[f"{head}.attn.to_v.{rest}"]])
        elif ".attn.to_v." not in name:
            for ours, theirs in names.items():
                if name.startswith("layers.") and f".{ours}." in name:
                    name = name.replace(f".{ours}.", f".{theirs}.")
                    break
            made[name] = tensor
    return made


def image_encoder_folder(path: Path, seed: int = 11) -> Path:
    """Write a tiny vision encoder as transformers does."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=PATCH,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=30,
        patch_size=6,
        projection_dim=EMBEDS,
    )
    randomise(CLIPVisionModelWithProjection(config), seed).save_pretrained(path)
    return path
