"""The configs of the model's components: Stable Diffusion's classes with few channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "CONTROLNET",
    "IMAGE_ENCODER",
    "IMAGE_TOKENS",
    "PREVIEW",
    "SCHEDULER",
    "TEXT_ENCODER",
    "UNET",
    "VAE",
    "VOCABULARY",
]

VOCABULARY = 768
"""The most tokens of the tokenizer: 512 for the bytes, the merges, and two special tokens."""

TEXT_ENCODER: Mapping[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 128,
}
"""``vocab_size`` and the ids of the special tokens come from the tokenizer."""

UNET: Mapping[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (64, 128, 160),
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "attention_head_dim": 4,  # diffusers' name for the number of heads
    "norm_num_groups": 16,
}

CONTROLNET: Mapping[str, Any] = {
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "conditioning_embedding_out_channels": (8, 16, 32, 64),
    "attention_head_dim": 4,
}
"""What differs from the U-Net. It has no transformers."""

IMAGE_ENCODER: Mapping[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 8,
    "projection_dim": 64,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
"""CLIP's vision encoder, which the IP-Adapter reads."""

IMAGE_TOKENS = 4
"""How many tokens of the U-Net the IP-Adapter makes of an image."""

VAE: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 64, 128),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 128,
}
"""``scaling_factor`` is measured after training."""

PREVIEW: Mapping[str, Any] = {
    "encoder_block_out_channels": (4, 4, 4, 4),  # diffusers' class has an encoder too, which nothing uses
    "num_encoder_blocks": (0, 0, 0, 0),
    "decoder_block_out_channels": (16, 16, 16, 16),
    "num_decoder_blocks": (4, 2, 1, 0),
}
"""A TAESD with few channels. Its blocks are where latents are still small."""

SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DPMSolverMultistepScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
"""DPM++ 2M, the default, with Stable Diffusion's noise schedule.

This class does not clip, and has no key ``clip_sample``. Classes that have it (DDIM, DDPM, …) would clip latents to
-1..1 without the key.
"""
