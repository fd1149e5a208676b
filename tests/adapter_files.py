"""LoRA files for tests, in the shapes of a model of four modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdrt.adapters.change import Adapter, Change
from sdrt.adapters.lora.reader import open_adapter
from sdrt.families import Family
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from tests.safetensors_files import save_file, write_file

__all__ = [
    "ATTENTION",
    "CONV",
    "FIRST",
    "NORM",
    "SHAPES",
    "TEXT",
    "change_of",
    "kohya",
    "numbers",
    "opened",
    "with_bits",
]

Array = np.ndarray[Any, Any]
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONV, NORM, FIRST = "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.norm1", "conv_in"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "unet": {
        f"{FIRST}.weight": (8, 4, 3, 3),
        f"{FIRST}.bias": (8,),
        f"{ATTENTION}.weight": (8, 12),
        f"{CONV}.weight": (6, 8, 3, 3),
        f"{CONV}.bias": (6,),
        f"{NORM}.weight": (8,),
        f"{NORM}.bias": (8,),
    },
    "text_encoder": {f"{TEXT}.weight": (12, 12), f"{TEXT}.bias": (12,)},
}


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def kohya(module: str = ATTENTION) -> str:
    return f"lora_unet_{module.replace('.', '_')}"


def opened(
    folder: Path,
    tensors: Mapping[str, Array],
    *,
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]] = SHAPES,
    family: Family = STABLE_DIFFUSION,
    name: str = "adapter.safetensors",
) -> Adapter:
    """Write a file, and read it for a model."""
    save_file(tensors, folder / name)
    return open_adapter(folder / name, family=family, shapes=shapes)


def change_of(adapter: Adapter) -> Change:
    """The only change of an adapter."""
    ((change,),) = (changes.values() for changes in adapter.changes.values())
    return change


def with_bits(
    path: Path, tensors: Mapping[str, tuple[str, Array]], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors of types that NumPy lacks, each as its type and its bits, so that none is aligned."""
    header: dict[str, Any] = {"__metadata__": {"pad": "x", **(metadata or {})}}
    end = 0
    for key, (dtype, bits) in tensors.items():
        header[key] = {"dtype": dtype, "shape": list(bits.shape), "data_offsets": [end, end + bits.nbytes]}
        end += bits.nbytes
    write_file(path, header, (bits.tobytes() for _, bits in tensors.values()))
    return path
