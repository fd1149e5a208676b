"""Tiny diffusers checkpoints with random weights, one per configuration that must behave the same everywhere.

`make_checkpoint(folder, variant)` writes a folder that `StableDiffusionPipeline.from_pretrained` loads. The
weights depend on the variant alone, so two machines make the same images. Norm weights and every bias are
drawn too: a graph that drops or swaps one must not pass a comparison.
"""

from __future__ import annotations

import collections
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["VARIANTS", "Variant", "make_checkpoint", "randomise", "write_tokenizer"]

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
CORPUS = """
a beautiful sunset over the sea, oil painting, highly detailed, trending, sharp focus, studio lighting, 8 k
a photo of an astronaut riding a horse on mars, portrait of an old man, a small red house in the mountains
the cat sat on the wooden table, low quality, blurry, worst quality, bad anatomy, extra fingers, watermark
a castle in a dark forest, fantasy landscape, matte painting, soft light, volumetric fog, cinematic, film
"""
MERGES = 160

TEXT = {"layer_norm_eps": 1e-5, "projection_dim": 16, "vocab_size": 0}
UNET = {"norm_num_groups": 4, "center_input_sample": False, "act_fn": "silu"}
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
}
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One configuration: what is passed to each diffusers or transformers class."""

    text: dict[str, Any]
    unet: dict[str, Any]
    vae: dict[str, Any]
    scheduler: tuple[str, dict[str, Any]]
    seed: int
    pad: str = EOS
    low_res_scheduler: tuple[str, dict[str, Any]] | None = None
    pipeline: str = ""


VARIANTS: dict[str, Variant] = {
    # Stable Diffusion 1.x in small: one head count for all levels, convolutional projections, PNDM.
    "sd1": Variant(
        seed=1,
        text={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
        | {"hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 2},
        unet={"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32)}
        | {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
        | {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
        | {"layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 32},
        vae={"latent_channels": 4, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1}
        | {"scaling_factor": 0.18215},
        scheduler=(
            "PNDMScheduler",
            NOISE | {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1},
        ),
    ),
    # Stable Diffusion 2.1: v prediction, linear projections, heads per level, GELU, "!" as padding.
    "sd2": Variant(
        seed=2,
        pad="!",
        text={"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3}
        | {"hidden_act": "gelu", "max_position_embeddings": 77, "eos_token_id": 2},
        unet={"sample_size": 12, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32, 32)}
        | {"down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")}
        | {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
        | {"layers_per_block": 1, "attention_head_dim": (2, 4, 4), "cross_attention_dim": 48}
        | {"use_linear_projection": True, "upcast_attention": True},
        vae={"latent_channels": 4, "block_out_channels": (8, 8, 8, 16), "layers_per_block": 1}
        | {"scaling_factor": 0.18215},
        scheduler=(
            "DDIMScheduler",
            NOISE
            | {"prediction_type": "v_prediction", "clip_sample": False}
            | {"set_alpha_to_one": False, "steps_offset": 1},
        ),
    ),
    # Two layers per block, eight latent channels, another scaling factor, a deeper VAE, Karras DPM++ 2M.
    "deep": Variant(
        seed=3,
        text={"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"hidden_act": "quick_gelu", "max_position_embeddings": 77},
        unet={"sample_size": 16, "in_channels": 8, "out_channels": 8, "block_out_channels": (8, 16, 24)}
        | {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")}
        | {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
        | {"layers_per_block": 2, "attention_head_dim": 4, "cross_attention_dim": 24},
        vae={"latent_channels": 8, "block_out_channels": (4, 8, 8, 12), "layers_per_block": 2}
        | {"scaling_factor": 0.13025, "force_upcast": False},
        scheduler=(
            "DPMSolverMultistepScheduler",
            NOISE | {"use_karras_sigmas": True, "timestep_spacing": "trailing", "steps_offset": 1},
        ),
    ),
    # The rarer switches: two transformer layers, cross-only attention, scale-shift time, a short text.
    "mixed": Variant(
        seed=4,
        text={"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2}
        | {"hidden_act": "gelu", "max_position_embeddings": 24},
        unet={"sample_size": (8, 16), "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 24)}
        | {"down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D")}
        | {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
        | {"layers_per_block": 1, "attention_head_dim": (2, 3), "cross_attention_dim": 32}
        | {"transformer_layers_per_block": 2, "only_cross_attention": (False, True)}
        | {"dual_cross_attention": False, "resnet_time_scale_shift": "scale_shift"}
        | {"flip_sin_to_cos": False, "freq_shift": 1},
        vae={"latent_channels": 4, "block_out_channels": (4, 8, 8, 8), "layers_per_block": 1}
        | {"scaling_factor": 0.5, "use_quant_conv": False, "use_post_quant_conv": False},
        scheduler=(
            "EulerAncestralDiscreteScheduler",
            NOISE | {"timestep_spacing": "leading", "steps_offset": 1},
        ),
    ),
}

# InstructPix2Pix: the image's latents beside the latents.
VARIANTS["pix2pix"] = replace(VARIANTS["sd1"], unet=VARIANTS["sd1"].unet | {"in_channels": 8}, seed=6)
# The x4 upscaler: the small image itself, how noisy it is as a class label, and a VAE of factor 4.
VARIANTS["upscale"] = replace(
    VARIANTS["sd2"],
    unet=VARIANTS["sd2"].unet
    | {"in_channels": 7, "num_class_embeds": 1000, "only_cross_attention": (True, True, False)},
    vae={"latent_channels": 4, "block_out_channels": (8, 8, 16), "layers_per_block": 1}
    | {"scaling_factor": 0.08333}
    | {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3},
    low_res_scheduler=("DDPMScheduler", {"beta_schedule": "scaled_linear"}),
    seed=7,
)
# Stable Diffusion 1.x for inpainting: a mask and the masked image's latents beside the latents.
VARIANTS["inpaint"] = replace(VARIANTS["sd1"], unet=VARIANTS["sd1"].unet | {"in_channels": 9}, seed=5)

# Latent consistency models: the guidance scale is an input. One is known by its class, too.
VARIANTS["lcm"] = replace(
    VARIANTS["sd1"],
    unet=VARIANTS["sd1"].unet | {"time_cond_proj_dim": 16},
    scheduler=("LCMScheduler", NOISE | {"original_inference_steps": 50, "steps_offset": 1}),
    seed=8,
)
VARIANTS["lcm-class"] = replace(VARIANTS["lcm"], pipeline="LatentConsistencyModelPipeline", seed=9)
# Stable Diffusion 2 in its other kinds: for 512x512, which predicts epsilon, and for inpainting.
VARIANTS["sd2-epsilon"] = replace(VARIANTS["sd2"], scheduler=VARIANTS["sd1"].scheduler, seed=10)
VARIANTS["sd2-inpaint"] = replace(
    VARIANTS["sd2-epsilon"], unet=VARIANTS["sd2"].unet | {"in_channels": 9}, seed=11
)
# Pruned as BK-SDM is: no middle block, and as many levels with attention as without.
VARIANTS["pruned"] = replace(VARIANTS["sd1"], unet=VARIANTS["sd1"].unet | {"mid_block_type": None}, seed=12)


def _byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 byte values, in CLIP's order."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) for byte in kept] + [chr(256 + index) for index in range(len(moved))]


def _train_merges(symbols: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges of `CORPUS`: the most frequent pair first, ties in alphabetical order."""
    words = collections.Counter(CORPUS.replace(",", " , ").split())
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    assert all(piece[0] in symbols for parts in pieces.values() for piece in parts)
    merges: list[tuple[str, str]] = []
    while len(merges) < MERGES:
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in pieces.values():
            _merge(parts, best)
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> None:
    """Replace every occurrence of `pair` in `parts` by its concatenation, in place."""
    index = 0
    while index < len(parts) - 1:
        if (parts[index], parts[index + 1]) == pair:
            parts[index : index + 2] = ["".join(pair)]
        index += 1


def write_tokenizer(folder: Path, variant: Variant) -> int:
    """Write CLIP's tokenizer files and return the vocabulary's size."""
    symbols = _byte_symbols()
    merges = _train_merges(symbols)
    tokens = [
        *symbols,
        *(symbol + "</w>" for symbol in symbols),
        *("".join(pair) for pair in merges),
        BOS,
        EOS,
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens)
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": variant.pad}
    config = special | {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": variant.text["max_position_embeddings"],
        "tokenizer_class": "CLIPTokenizer",
    }
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
    return len(vocabulary)


def randomise(module: Any, seed: int) -> Any:
    """Draw every parameter: norms around 1, biases around 0, matrices scaled to keep the signal's size."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(centre + 0.1 * noise)
            elif "embedding" in name and "time_embedding" not in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return module.eval()


def make_checkpoint(folder: Path | str, variant: str = "sd1") -> Path:
    """Write the tiny checkpoint `variant` (a key of `VARIANTS`) as a diffusers folder; return its path."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    folder, spec = Path(folder), VARIANTS[variant]
    size = write_tokenizer(folder / "tokenizer", spec)
    text = TEXT | {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": 1} | spec.text
    name, scheduler = spec.scheduler
    parts = {
        "text_encoder": randomise(CLIPTextModel(CLIPTextConfig(**(text | {"vocab_size": size}))), spec.seed),
        "unet": randomise(diffusers.UNet2DConditionModel(**(UNET | spec.unet)), spec.seed + 100),
        "vae": randomise(diffusers.AutoencoderKL(**(VAE | spec.vae)), spec.seed + 200),
    }
    for part, module in parts.items():
        module.save_pretrained(folder / part, safe_serialization=True)
    getattr(diffusers, name)(**scheduler).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", name],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if spec.low_res_scheduler:
        name, config = spec.low_res_scheduler
        getattr(diffusers, name)(**config).save_pretrained(folder / "low_res_scheduler")
        index |= {
            "low_res_scheduler": ["diffusers", name],
            "max_noise_level": 350,
            "watermarker": [None, None],
        }
        index["_class_name"] = "StableDiffusionUpscalePipeline"
    elif spec.unet["in_channels"] == 2 * spec.unet["out_channels"]:
        index["_class_name"] = "StableDiffusionInstructPix2PixPipeline"
    if spec.pipeline:
        index["_class_name"] = spec.pipeline
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder
