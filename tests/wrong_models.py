"""Things that people give as a model and that are none, with the words that tell them what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.safetensors_files import save_file

__all__ = ["WRONG_MODELS"]

Make = Callable[[Path], None]
_ATTENTION = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def _weights(names: Mapping[str, tuple[int, ...]]) -> Make:
    return lambda path: save_file({name: np.zeros(shape, np.float16) for name, shape in names.items()}, path)


def _bytes(content: bytes) -> Make:
    return lambda path: (path.write_bytes(content), None)[1]


def _folder(files: Mapping[str, Any]) -> Make:
    """A folder. Values are JSON, bytes, or functions that make a file."""

    def make(path: Path) -> None:
        path.mkdir()
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path / name)
            else:
                text = content if isinstance(content, bytes) else json.dumps(content).encode()
                (path / name).write_bytes(text)

    return make


def _pipeline(name: str) -> Make:
    return _folder({"model_index.json": {"_class_name": name, "_diffusers_version": "0.36.0"}})


def _huge(path: Path) -> None:
    path.mkdir()
    with (path / "model_index.json").open("wb") as file:
        file.truncate(1 << 30)


def _component(name: str) -> Make:
    return _folder({"config.json": {"_class_name": name}, "diffusion_pytorch_model.safetensors": _UNET})


_UNET = _weights({"conv_in.weight": (8, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)})
_CHECKPOINT = _weights({"model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3)})
_LORA = _weights(
    {f"lora_unet_{_ATTENTION}.lora_up.weight": (8, 2), f"lora_unet_{_ATTENTION}.lora_down.weight": (2, 768)}
)

WRONG_MODELS: Mapping[str, tuple[Make, str]] = {
    "lora.safetensors": (_LORA, "is a LoRA for Stable Diffusion 1, not a whole model"),
    "vae.safetensors": (_weights({"decoder.conv_in.weight": (8, 4, 3, 3)}), "is a VAE, not a whole model"),
    "control.safetensors": (
        _weights({"control_model.input_hint_block.0.weight": (8, 3, 3, 3)}),
        "is a ControlNet",
    ),
    "ip.safetensors": (
        _weights({"image_proj.proj.weight": (8, 8)}),
        "is an IP-Adapter",
    ),
    "words.safetensors": (_weights({"emb_params": (2, 768)}), "is a textual inversion, not a whole model"),
    "sd3.safetensors": (
        _weights({"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": (8, 8)}),
        "of Stable Diffusion 3",
    ),
    "flux.safetensors": (
        _weights({"double_blocks.0.img_attn.qkv.weight": (8, 8)}),
        "a diffusion transformer of Flux",
    ),
    "pixart.safetensors": (_weights({"adaln_single.linear.weight": (8, 8)}), "PixArt"),
    "t5.safetensors": (_weights({"shared.weight": (8, 8)}), "is a text encoder"),
    "other.safetensors": (
        _weights({"layers.0.q_proj.weight": (8, 8), "b": (1,)}),
        "of an unknown kind",
    ),
    "empty.safetensors": (_weights({}), "of an unknown kind"),
    "nothing.safetensors": (_bytes(b""), "it is cut off"),
    "pointer.safetensors": (
        _bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS.*git lfs pull",
    ),
    "page.safetensors": (_bytes(b"<!DOCTYPE html>"), "it is a web page"),
    "pickle.safetensors": (_bytes(b"PK\x03\x04" + bytes(99)), "a zip archive, as torch saves pickles"),
    "model.ckpt": (_bytes(b"PK\x03\x04" + bytes(99)), "is a pickle, which runs code"),
    "model": (_CHECKPOINT, r"a single-file checkpoint, but its name .* rename it to .*model\.safetensors$"),
    "v1.5": (_CHECKPOINT, r"does not end in \.safetensors: rename it to .*v1\.5\.safetensors$"),
    "named.ckpt": (_CHECKPOINT, r"does not end in \.safetensors: rename it to .*named\.safetensors$"),
    "named.txt": (_LORA, "is a LoRA for Stable Diffusion 1, not a whole model"),
    "model.gguf": (_bytes(b"GGUF" + bytes(99)), "is a GGUF file of quantised weights"),
    "model.zip": (_bytes(b"PK\x03\x04" + bytes(99)), "is an archive, which must be unpacked"),
    "model.onnx": (_bytes(b"\x08\x08"), "is one graph of a model"),
    "model.txt": (_bytes(b"hello"), "is a file, expected a model folder"),
    "pipe": (os.mkfifo, "is a pipe or a device"),
    "zero": (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device"),
    "link": (lambda path: path.symlink_to("nowhere"), "is a link to nowhere, which does not exist"),
    "empty": (_folder({}), "is empty, expected a model folder"),
    **{
        name: (_pipeline(name), f"pipeline class '{name}' is not supported")
        for name in ("FluxPipeline", "StableDiffusion3Pipeline", "PixArtAlphaPipeline", "WanPipeline")
    },
    "unet": (_component("UNet2DConditionModel"), r"is a U-Net \('UNet2DConditionModel'\), not a whole model"),
    "controlnet": (_component("ControlNetModel"), "is a ControlNet"),
    "vae": (_component("AutoencoderKL"), "is a VAE"),
    "transformer": (_component("FluxTransformer2DModel"), "is a diffusion transformer"),
    "llm": (_folder({"config.json": {"architectures": ["LlamaForCausalLM"]}}), "is a language model"),
    "clip": (_folder({"config.json": {"architectures": ["CLIPTextModel"]}}), "is a text encoder"),
    "peft": (_folder({"adapter_config.json": {}}), "is a LoRA of peft"),
    "loras": (
        _folder({"pytorch_lora_weights.safetensors": _LORA}),
        "holds pytorch_lora_weights.safetensors, a LoRA",
    ),
    "single": (_folder({"v1-5.safetensors": _CHECKPOINT}), r"give the file itself, .*v1-5\.safetensors"),
    "pickles": (_folder({"v1-5.ckpt": b"PK\x03\x04"}), r"holds v1-5\.ckpt, but no model_index\.json"),
    "parts": (
        _folder({"unet/diffusion_pytorch_model.safetensors": _UNET}),
        "holds unet, but no model_index.json",
    ),
    "no object": (_folder({"model_index.json": []}), "holds a JSON list, expected an object"),
    "no json": (_folder({"model_index.json": b"{"}), "is not JSON"),
    "deep json": (_folder({"model_index.json": b"[" * 100_000}), "is not JSON"),
    "huge json": (_huge, "model_index.json has 1073741824 bytes, expected at most"),
    "no class": (_folder({"model_index.json": {}}), "pipeline class None is not supported"),
    "wrong class": (
        _folder({"model_index.json": {"_class_name": {"a": [1]}}}),
        "pipeline class .* is not supported",
    ),
}
"""By name: how to make one, and what an error says of it."""
