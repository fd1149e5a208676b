"""Architectures for random weights, as the configs of their components.

An architecture of another family than Stable Diffusion has a ``model_index`` with the family's ``_class_name``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ARCHITECTURES"]

_SD15: Mapping[str, Mapping[str, Any]] = {
    "text_encoder": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": 768,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    },
    "unet": {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
        "act_fn": "silu",
    },
    "vae": {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    "scheduler": {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    },
}

# SD 1.5's blocks with a few channels each, for tests and for trying an installation in seconds.
_TINY: Mapping[str, Mapping[str, Any]] = {
    "text_encoder": {
        **_SD15["text_encoder"],
        "vocab_size": 514,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": 32,
    },
    "unet": {
        **_SD15["unet"],
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    },
    "vae": {
        **_SD15["vae"],
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 64,
    },
    "scheduler": _SD15["scheduler"],
}

# Stable Diffusion 1.5 for inpainting, and InstructPix2Pix, which sees an image beside the latents.
_SD15_INPAINTING = {**_SD15, "unet": {**_SD15["unet"], "in_channels": 9}}
_PIX2PIX = {**_SD15, "unet": {**_SD15["unet"], "in_channels": 8}}

# Stable Diffusion's x4 upscaler, version 2. It has self-attention at the coarsest level only, whose cost limits the
# images' size.
_X4_UPSCALER: Mapping[str, Mapping[str, Any]] = {
    "text_encoder": {
        **_SD15["text_encoder"],
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 512,
    },
    "unet": {
        **_SD15["unet"],
        "sample_size": 128,
        "in_channels": 7,
        "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
        "block_out_channels": (256, 512, 512, 1024),
        "cross_attention_dim": 1024,
        "only_cross_attention": (True, True, True, False),
        "use_linear_projection": True,
        "num_class_embeds": 1000,
    },
    "vae": {
        **_SD15["vae"],
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (128, 256, 512),
        "sample_size": 256,
        "scaling_factor": 0.08333,
    },
    "scheduler": {
        **_SD15["scheduler"],
        "_class_name": "DDIMScheduler",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "prediction_type": "v_prediction",
    },
    "low_res_scheduler": {
        "_class_name": "DDPMScheduler",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
    },
}

ARCHITECTURES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sd15": _SD15,
    "sd15-inpainting": _SD15_INPAINTING,
    "instruct-pix2pix": _PIX2PIX,
    "x4-upscaler": _X4_UPSCALER,
    "tiny": _TINY,
}
