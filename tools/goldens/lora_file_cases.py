"""The files of `lora_files.npz` in the names of several programs, for the tiny models, with NumPy alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tools.goldens.lora_cases import base

__all__ = ["MODULES", "READ", "SAMPLED", "base_of"]

Shape = tuple[int, ...]
Tensors = dict[str, NDArray[np.float32]]
_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0"
_ATTENTION_XL = "down_blocks.1.attentions.0.transformer_blocks.1"
_TEXT = "text_model.encoder.layers.1"


def _text(width: int, inner: int, projection: str) -> Mapping[str, Shape]:
    """diffusers takes a kohya file's attention only if it has the projection of the output."""
    return {
        f"{_TEXT}.self_attn.{projection}": (width, width),
        f"{_TEXT}.self_attn.out_proj": (width, width),
        f"{_TEXT}.mlp.fc2": (width, inner),
    }


MODULES: Mapping[str, Mapping[str, Mapping[str, Shape]]] = {
    "tiny": {
        "unet": {
            f"{_ATTENTION}.attn1.to_q": (16, 16),
            f"{_ATTENTION}.attn1.to_out.0": (16, 16),
            f"{_ATTENTION}.attn2.to_v": (16, 32),
            f"{_ATTENTION}.ff.net.2": (16, 64),
            "down_blocks.0.attentions.0.proj_in": (16, 16, 1, 1),
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (32, 32),
            "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_k": (16, 16),
            "down_blocks.0.resnets.0.conv1": (16, 16, 3, 3),
            "down_blocks.0.resnets.0.time_emb_proj": (16, 64),
        },
        "text_encoder": _text(32, 64, "q_proj"),
    },
    "tiny-xl": {
        "unet": {
            f"{_ATTENTION_XL}.attn1.to_q": (32, 32),
            f"{_ATTENTION_XL}.attn2.to_k": (32, 96),
            "down_blocks.1.attentions.0.proj_in": (32, 32),
            "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0": (32, 32),
            "mid_block.attentions.0.transformer_blocks.0.ff.net.2": (32, 128),
            "down_blocks.0.resnets.0.conv2": (16, 16, 3, 3),
            "down_blocks.1.resnets.0.conv_shortcut": (32, 16, 1, 1),
            "up_blocks.0.resnets.0.time_emb_proj": (32, 64),
        },
        "text_encoder": _text(32, 64, "v_proj"),
        "text_encoder_2": _text(64, 64, "k_proj"),
    },
}
"""Some modules of each model, with the shapes of their weights."""
SAMPLED = 5
"""Every fifth number of a weight is recorded."""
# As kohya's trainer calls those modules of SDXL's U-Net, in the order above.
_LDM = (
    "input_blocks_3_1_transformer_blocks_1_attn1_to_q",
    "input_blocks_3_1_transformer_blocks_1_attn2_to_k",
    "input_blocks_3_1_proj_in",
    "output_blocks_1_1_transformer_blocks_0_attn1_to_out_0",
    "middle_block_1_transformer_blocks_0_ff_net_2",
    "input_blocks_1_0_out_layers_3",
    "input_blocks_3_0_skip_connection",
    "output_blocks_0_0_emb_layers_1",
)


def base_of(name: str, shape: Shape) -> NDArray[np.float32]:
    """The numbers of a parameter, by its name."""
    return base(shape, zlib.crc32(name.encode()))


def _pair(module: str, shape: Shape, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    kernel = (1,) * len(shape[2:])
    return base_of(f"{module}/up", (shape[0], rank, *kernel)), base_of(f"{module}/down", (rank, *shape[1:]))


def _kohya(model: str, prefixes: Mapping[str, str], *, ldm: bool = False, alpha: bool = True) -> Tensors:
    """Ranks differ, but not without alpha: diffusers 0.39 then takes the rank of other layers for it."""
    tensors: Tensors = {}
    for component, modules in MODULES[model].items():
        for number, (module, shape) in enumerate(modules.items()):
            spelled = _LDM[number] if ldm and component == "unet" else module.replace(".", "_")
            name, rank = prefixes[component] + spelled, 2 + number % 2 if alpha else 2
            up, down = _pair(f"{component}.{module}", shape, rank)
            tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
            if alpha:
                # The same for all: diffusers 0.39 takes those of attention layers from other layers.
                tensors[f"{name}.alpha"] = np.asarray(1.5, np.float32)
    return tensors


def _diffusers(model: str, up: str, down: str, *, text: str = "") -> Tensors:
    """Dotted names. `text` is what the text encoders have in place of `.lora`."""
    tensors: Tensors = {}
    for component, modules in MODULES[model].items():
        for module, shape in modules.items():
            pair = _pair(f"{component}.{module}", shape, 3)
            for value, spelled in zip(pair, (up, down), strict=True):
                end = spelled.replace(".lora", text, 1) if text and component != "unet" else spelled
                tensors[f"{component}.{module}{end}.weight"] = value
    return tensors


def _processors(model: str) -> Tensors:
    """diffusers before 0.22: only attention, by its processors."""
    tensors: Tensors = {}
    for component, modules in MODULES[model].items():
        for module, shape in modules.items():
            if component == "unet" and "attn" in module:
                head, _, last = module.removesuffix(".0").rpartition(".")
                up, down = _pair(f"{component}.{module}", shape, 2)
                name = f"unet.{head}.processor.{last}_lora"
                tensors |= {f"{name}.up.weight": up, f"{name}.down.weight": down}
            elif "self_attn" in module:
                up, down = _pair(f"{component}.{module}", shape, 2)
                name = f"{component}.{module}.lora_linear_layer"
                tensors |= {f"{name}.up.weight": up, f"{name}.down.weight": down}
    return tensors


_SD = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
_XL = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}

READ: Mapping[str, tuple[str, Callable[[], Tensors]]] = {
    "kohya": ("tiny", lambda: _kohya("tiny", _SD)),
    "kohya without alpha": ("tiny", lambda: _kohya("tiny", _SD, alpha=False)),
    "kohya xl": ("tiny-xl", lambda: _kohya("tiny-xl", _XL)),
    "kohya xl, first names": ("tiny-xl", lambda: _kohya("tiny-xl", _XL, ldm=True)),
    "diffusers": ("tiny", lambda: _diffusers("tiny", ".lora.up", ".lora.down", text=".lora_linear_layer")),
    "peft": ("tiny", lambda: _diffusers("tiny", ".lora_B", ".lora_A")),
    "peft xl": ("tiny-xl", lambda: _diffusers("tiny-xl", ".lora_B", ".lora_A")),
    "processors": ("tiny", lambda: _processors("tiny")),
}
"""Files as programs write them: the model, and the tensors."""
