"""Single files of tiny random models: diffusers' modules, written in CompVis' and OpenCLIP's names."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.architectures.vae import VaeConfig
from sdrt_export.checkpoints.keys.clip import open_clip_rows
from sdrt_export.checkpoints.keys.row import LINEAR, TRANSPOSED, Row
from sdrt_export.checkpoints.keys.unet import unet_rows
from sdrt_export.checkpoints.keys.vae import vae_rows
from tests.safetensors_files import save_file

Array = np.ndarray[Any, Any]
State = dict[str, Array]

SD1_UNET: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": 8,
}
SD2_UNET = {
    **SD1_UNET,
    "block_out_channels": (64, 128),
    "use_linear_projection": True,
    "attention_head_dim": (1, 2),
    "layers_per_block": 2,
}
SDXL_UNET = {
    **SD2_UNET,
    "block_out_channels": (64, 128, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2, 2),
    "transformer_layers_per_block": (1, 2, 3),
    "cross_attention_dim": 192,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 64 + 6 * 32,
}
REFINER_UNET = {
    **SDXL_UNET,
    "block_out_channels": (64, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 1, 2),
    "transformer_layers_per_block": 2,
    "cross_attention_dim": 128,
    "projection_class_embeddings_input_dim": 64 + 5 * 32,
}
UPSCALER_UNET = {
    **SD2_UNET,
    "in_channels": 7,
    "num_class_embeds": 1000,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "only_cross_attention": (True, True),
}
VAE = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "projection_dim": 64,
    "vocab_size": 600,
    "bos_token_id": 0,
    "eos_token_id": 599,
}
WHOLE = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
# The refiner's reads 128 numbers; its projection is 64 wide.
BIG = {**TEXT, "hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3, "hidden_act": "gelu"}


def random_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's tensors, with random numbers where they are constant when it is made."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return {name: tensor for name, tensor in module.state_dict().items() if "position_ids" not in name}


def inverted(state: Mapping[str, torch.Tensor], rows: Iterable[Row], *, linear: int = 2) -> State:
    """diffusers' tensors by the names that a table takes them from. Matrices of `LINEAR` get `linear` more axes."""
    table: dict[str, Row] = {}
    for row in rows:
        table.setdefault(row.to, row)
    found: dict[str, list[Array]] = {}
    for name, tensor in state.items():
        head = name
        while head not in table:
            head = head.rpartition(".")[0]
        row, array = table[head], tensor.numpy()
        if row.take is TRANSPOSED:
            array = np.ascontiguousarray(array.T)
        if row.take is LINEAR:
            array = array.reshape(*array.shape, *[1] * linear)
        found.setdefault(row.of + name[len(head) :], []).append(array)
    # transformers has keys, values, queries in this order, OpenCLIP joins queries, keys, values.
    return {
        name: arrays[0] if len(arrays) == 1 else np.concatenate([arrays[at] for at in (2, 0, 1)])
        for name, arrays in found.items()
    }


@dataclass(frozen=True, kw_only=True)
class Made:
    """A single file's content, and diffusers' tensors that it was made of, by part."""

    tensors: State
    parts: dict[str, dict[str, torch.Tensor]]
    modules: dict[str, nn.Module] = field(default_factory=dict)

    def saved(self, path: Path, **more: Array) -> Path:
        save_file({**self.tensors, **more}, path)
        return path

    def without(self, prefix: str) -> State:
        return {name: array for name, array in self.tensors.items() if not name.startswith(prefix)}


def prefixed(prefix: str, state: Mapping[str, Any]) -> State:
    return {f"{prefix}{name}": np.asarray(array) for name, array in state.items()}


def unet_state(config: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], State]:
    state = random_state(UNet2DConditionModel(**config))
    return state, prefixed("model.diffusion_model.", inverted(state, unet_rows(UNetConfig.of(config))))


def vae_state(config: Mapping[str, Any] = VAE) -> tuple[dict[str, torch.Tensor], State]:
    state = random_state(AutoencoderKL(**config))
    return state, prefixed("first_stage_model.", inverted(state, vae_rows(VaeConfig.of(config))))


def text_model(config: Mapping[str, Any], *, projected: bool = False) -> nn.Module:
    cls = CLIPTextModelWithProjection if projected else CLIPTextModel
    made: nn.Module = cls(CLIPTextConfig(**config))
    return made


def made(kind: str, unet: Mapping[str, Any] | None = None, *, whole: bool = False) -> Made:
    """A whole single file of a kind, of tiny random modules. The U-Net's config may be changed.

    With `whole`, the text encoders know all of CLIP's words.
    """
    return _made(kind, repr(sorted((unet or {}).items())), whole)


@cache
def _made(kind: str, changes: str, whole: bool) -> Made:
    unet = dict(literal_eval(changes))
    configs = {"sd1": SD1_UNET, "sd2": SD2_UNET, "sdxl": SDXL_UNET, "sdxl-refiner": REFINER_UNET}
    own, tensors = unet_state({**{**configs, "x4-upscaler": UPSCALER_UNET}[kind], **unet})
    vae, vae_tensors = vae_state()
    parts, modules = {"unet": own, "vae": vae}, {}
    for part, prefix, config, open_clip, projected in TEXTS[kind]:
        modules[part] = text_model({**config, **(WHOLE if whole else {})}, projected=projected)
        parts[part] = random_state(modules[part])
        names: State = {name: tensor.numpy() for name, tensor in parts[part].items()}
        if open_clip:
            names = inverted(parts[part], open_clip_rows(config["num_hidden_layers"], projected=projected))
        tensors |= prefixed(prefix, names)
    return Made(tensors={**tensors, **vae_tensors}, parts=parts, modules=modules)


TEXTS: Mapping[str, list[tuple[str, str, dict[str, Any], bool, bool]]] = {
    "sd1": [("text_encoder", "cond_stage_model.transformer.", TEXT, False, False)],
    "sd2": [("text_encoder", "cond_stage_model.model.", {**TEXT, "hidden_act": "gelu"}, True, False)],
    "x4-upscaler": [("text_encoder", "cond_stage_model.model.", {**TEXT, "hidden_act": "gelu"}, True, False)],
    "sdxl": [
        ("text_encoder", "conditioner.embedders.0.transformer.", TEXT, False, False),
        ("text_encoder_2", "conditioner.embedders.1.model.", BIG, True, True),
    ],
    "sdxl-refiner": [("text_encoder_2", "conditioner.embedders.0.model.", BIG, True, True)],
}
