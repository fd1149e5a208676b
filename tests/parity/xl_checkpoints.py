"""Tiny SDXL checkpoints with random weights: three odd configurations, and models for the other tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.parity.checkpoints import NOISE, TEXT, UNET, VAE, Variant, randomise, write_tokenizer

__all__ = ["XL_VARIANTS", "XlVariant", "make_xl_checkpoint"]


@dataclass(frozen=True, kw_only=True)
class XlVariant(Variant):
    """One configuration. `text` is None for a refiner, which has only the second text encoder."""

    text: dict[str, Any] | None  # type: ignore[assignment]
    text_2: dict[str, Any]
    pipeline: str = "StableDiffusionXLPipeline"
    options: dict[str, bool] = field(default_factory=dict)


def _sizes(pooled: int, width: int, count: int = 6) -> dict[str, Any]:
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": width,
        "projection_class_embeddings_input_dim": pooled + count * width,
    }


_TINY_VAE = {"latent_channels": 4, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1}

XL_VARIANTS: dict[str, XlVariant] = {
    # SDXL's base in small: no attention at the finest level, transformers of 1 and 2 layers, heads per level, "!" as
    # the second tokenizer's padding.
    "xl": XlVariant(
        seed=21,
        text={"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
        | {"hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 2},
        text_2={"hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 5}
        | {"hidden_act": "gelu", "max_position_embeddings": 77, "eos_token_id": 2, "projection_dim": 36},
        unet={"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 24, 32)}
        | {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")}
        | {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
        | {"layers_per_block": 1, "attention_head_dim": (2, 3, 4), "cross_attention_dim": 64}
        | {"transformer_layers_per_block": (1, 2, 3), "use_linear_projection": True}
        | _sizes(36, 6),
        vae=_TINY_VAE | {"scaling_factor": 0.13025},
        scheduler=("EulerDiscreteScheduler", NOISE | {"timestep_spacing": "leading", "steps_offset": 1}),
        options={"force_zeros_for_empty_prompt": True},
    ),
    # SSD-1B's kind: uneven layers, transformers of other depths on the way up, a middle without attention; wider
    # projections than states, an end token of today's configs, the empty negative prompt encoded.
    "xl-uneven": XlVariant(
        seed=22,
        text={"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"hidden_act": "quick_gelu", "max_position_embeddings": 77},
        text_2={"hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 5, "num_attention_heads": 3}
        | {"hidden_act": "gelu", "max_position_embeddings": 77, "projection_dim": 50},
        unet={"sample_size": 12, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 24, 16)}
        | {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D")}
        | {"mid_block_type": "UNetMidBlock2D"}
        | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")}
        | {"layers_per_block": (2, 1, 2), "attention_head_dim": (1, 2, 4), "cross_attention_dim": 56}
        | {"transformer_layers_per_block": (2, 1, 1), "use_linear_projection": True}
        | {"reverse_transformer_layers_per_block": (1, 1, 2)}
        | _sizes(50, 10),
        vae=_TINY_VAE | {"scaling_factor": 0.5, "layers_per_block": 2, "force_upcast": False},
        scheduler=(
            "DPMSolverMultistepScheduler",
            NOISE | {"use_karras_sigmas": True, "timestep_spacing": "trailing", "steps_offset": 1},
        ),
        options={"force_zeros_for_empty_prompt": False},
    ),
    # Convolutional projections, one head count, short texts, another number of latent channels.
    "xl-short": XlVariant(
        seed=23,
        text={"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
        | {"hidden_act": "gelu", "max_position_embeddings": 24},
        text_2={"hidden_size": 20, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"hidden_act": "quick_gelu", "max_position_embeddings": 24, "projection_dim": 20},
        unet={"sample_size": 10, "in_channels": 4, "out_channels": 4, "block_out_channels": (12, 20)}
        | {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
        | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
        | {"layers_per_block": 2, "attention_head_dim": 4, "cross_attention_dim": 36}
        | {"transformer_layers_per_block": 2}
        | _sizes(20, 32),
        vae=_TINY_VAE
        | {"scaling_factor": 0.13025, "block_out_channels": (8, 16, 16)}
        | {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3},
        scheduler=(
            "DDIMScheduler",
            NOISE
            | {"prediction_type": "v_prediction", "clip_sample": False}
            | {"set_alpha_to_one": False, "steps_offset": 1},
        ),
    ),
}
_BASE = XL_VARIANTS["xl"]
# A few kilobytes, for `tests/models/tiny-xl`.
XL_VARIANTS["xl-golden"] = replace(
    _BASE,
    text=_BASE.text and _BASE.text | {"hidden_size": 16, "intermediate_size": 24},
    text_2=_BASE.text_2 | {"hidden_size": 20, "intermediate_size": 32, "projection_dim": 12},
    unet=_BASE.unet
    | {"block_out_channels": (8, 16), "cross_attention_dim": 36, "attention_head_dim": (2, 4)}
    | {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "transformer_layers_per_block": (1, 2)}
    | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    | _sizes(12, 6),
    seed=27,
)
# The refiner: only the second text encoder, and a score in place of the target size.
XL_VARIANTS["xl-refiner"] = replace(
    _BASE,
    text=None,
    # An end token of today's configs.
    text_2={name: value for name, value in _BASE.text_2.items() if name != "eos_token_id"},
    unet=_BASE.unet | {"cross_attention_dim": 40} | _sizes(36, 6, count=5),
    seed=24,
    pipeline="StableDiffusionXLImg2ImgPipeline",
    options={"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
)
XL_VARIANTS["xl-inpaint"] = replace(
    _BASE,
    unet=_BASE.unet | {"in_channels": 9},
    seed=25,
    pipeline="StableDiffusionXLInpaintPipeline",
)
XL_VARIANTS["xl-pix2pix"] = replace(
    _BASE,
    unet=_BASE.unet | {"in_channels": 8},
    seed=26,
    pipeline="StableDiffusionXLInstructPix2PixPipeline",
)
# Playground 2.5: latents that are normalised channel by channel, and EDM's noise levels and preconditioning.
XL_VARIANTS["xl-normalised"] = replace(
    _BASE,
    vae=_TINY_VAE
    | {"scaling_factor": 0.5, "latents_mean": (-1.5, 0.25, 0.0, 2.5), "latents_std": (3.0, 0.5, 1.25, 2.0)},
    scheduler=(
        "EDMDPMSolverMultistepScheduler",
        {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0, "final_sigmas_type": "zero"},
    ),
    seed=28,
)
# LCM-SDXL: the guidance scale is an input.
XL_VARIANTS["xl-lcm"] = replace(
    _BASE,
    unet=_BASE.unet | {"time_cond_proj_dim": 10},
    scheduler=("LCMScheduler", NOISE | {"original_inference_steps": 50}),
    seed=27,
)


def make_xl_checkpoint(folder: Path, variant: str) -> Path:
    """Write the tiny checkpoint `variant` (a key of `XL_VARIANTS`) as a diffusers folder; return its path."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    spec = XL_VARIANTS[variant]
    name, scheduler = spec.scheduler
    index: dict[str, Any] = {
        "_class_name": spec.pipeline,
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", name],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        **spec.options,
    }
    modules: dict[str, Any] = {
        "unet": randomise(diffusers.UNet2DConditionModel(**(UNET | spec.unet)), spec.seed + 100),
        "vae": randomise(diffusers.AutoencoderKL(**(VAE | spec.vae)), spec.seed + 200),
    }
    encoders = (("", spec.text, CLIPTextModel), ("_2", spec.text_2, CLIPTextModelWithProjection))
    for number, (suffix, text, kind) in enumerate(encoders):
        if text is None:
            index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
            continue
        # The second tokenizer pads with "!", as SDXL's does.
        size = write_tokenizer(
            folder / f"tokenizer{suffix}", replace(spec, text=text, pad="!" if suffix else spec.pad)
        )
        values = TEXT | {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": 1} | text
        config = CLIPTextConfig(**(values | {"vocab_size": size}))
        modules[f"text_encoder{suffix}"] = randomise(kind(config), spec.seed + 10 * number)
        index |= {
            f"text_encoder{suffix}": ["transformers", kind.__name__],
            f"tokenizer{suffix}": ["transformers", "CLIPTokenizer"],
        }
    for part, module in modules.items():
        module.save_pretrained(folder / part, safe_serialization=True)
    getattr(diffusers, name)(**scheduler).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder
