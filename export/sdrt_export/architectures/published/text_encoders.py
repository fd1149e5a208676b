"""The configs of published text encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CLIP_G", "CLIP_H", "CLIP_L", "TINY", "TINY_G"]

_IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}

CLIP_L: Mapping[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 768,
    **_IDS,
}
"""The text encoder of Stable Diffusion 1, and the first of SDXL (CLIP ViT-L/14)."""

CLIP_H: Mapping[str, Any] = {
    **CLIP_L,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
"""The text encoder of Stable Diffusion 2 (OpenCLIP ViT-H/14), without the last layer, which the models do not use."""

CLIP_G: Mapping[str, Any] = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
"""The second text encoder of SDXL, and the only one of its refiner (OpenCLIP ViT-bigG/14)."""

TINY: Mapping[str, Any] = {
    **CLIP_L,
    "vocab_size": 514,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "projection_dim": 32,
}

TINY_G: Mapping[str, Any] = {**TINY, "hidden_size": 64, "hidden_act": "gelu", "projection_dim": 64}
