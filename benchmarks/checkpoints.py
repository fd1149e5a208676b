"""Writes checkpoints of random weights, without torch: a folder in diffusers' layout, or one file as A1111 has it.

    python -m benchmarks.checkpoints folder|single ARCHITECTURE SEED PATH

A tensor is drawn when it is written, so no component is ever in memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt_export.architectures.clip_text import ClipTextConfig
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.architectures.vae import VaeConfig
from sdrt_export.checkpoints.keys.clip import open_clip_rows, transformers_rows
from sdrt_export.checkpoints.keys.row import TRANSPOSED, Row
from sdrt_export.checkpoints.keys.unet import unet_rows
from sdrt_export.checkpoints.keys.vae import vae_rows
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.checkpoints.safetensors_writer import write_safetensors
from sdrt_export.components import parts_of
from sdrt_export.tokenizer import write_byte_tokenizer

__all__ = ["write_folder", "write_single_file"]

Array = NDArray[Any]
_WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
# Every system has this scheduler, and it needs no other settings than the noise.
_SCHEDULER = "EulerDiscreteScheduler"
_LENGTH = 77


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A tensor of a file: its shape, and how it is made."""

    shape: tuple[int, ...]
    make: Callable[[], Array]


def write_folder(checkpoint: RandomCheckpoint, folder: Path) -> None:
    """Write a folder in diffusers' layout, in float32."""
    family = checkpoint.family
    index: dict[str, Any] = {"_class_name": family.tasks[0].pipeline, "scheduler": ["diffusers", _SCHEDULER]}
    for part, (component, *_) in parts_of(family).items():
        (folder / part).mkdir(parents=True)
        _write_json(folder / part / "config.json", checkpoint.config(part))
        _write_tensors(folder / part / _WEIGHTS[component.library], _tensors(checkpoint, part), "F32")
        index[part] = [component.library, component.class_name]
    for name in family.tokenizers:
        write_byte_tokenizer(folder / "scratch", folder / name, _LENGTH)
        index[name] = ["transformers", "CLIPTokenizer"]
    config = checkpoint.scheduler_config()
    noise = {key: value for key, value in config.items() if key.startswith(("beta_", "num_train"))}
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": _SCHEDULER, **noise})
    index |= {name: [None, None] for name in ("safety_checker", "feature_extractor")}
    _write_json(folder / "model_index.json", index)


def _tensors(checkpoint: RandomCheckpoint, part: str) -> dict[str, _Tensor]:
    tensors = checkpoint.tensors(part)

    def maker(name: str) -> Callable[[], Array]:
        return lambda: tensors[name]

    return {name: _Tensor(shape=tensors.shape(name), make=maker(name)) for name in tensors}


def write_single_file(checkpoint: RandomCheckpoint, path: Path) -> None:
    """Write one file in float16, with the names that CompVis, OpenCLIP and Stability gave the tensors."""
    found: dict[str, _Tensor] = {}
    for part, (prefix, rows) in _layout(checkpoint).items():
        found |= {f"{prefix}{name}": one for name, one in _renamed(_tensors(checkpoint, part), rows).items()}
    _write_tensors(path, found, "F16")


def _layout(checkpoint: RandomCheckpoint) -> dict[str, tuple[str, Sequence[Row]]]:
    """The prefix and the table of names of each part."""
    layout: dict[str, tuple[str, Sequence[Row]]] = {
        "unet": ("model.diffusion_model.", unet_rows(UNetConfig.of(checkpoint.config("unet")))),
        "vae": ("first_stage_model.", vae_rows(VaeConfig.of(checkpoint.config("vae")))),
    }
    texts = sorted(part for part in parts_of(checkpoint.family) if part.startswith("text_encoder"))
    layers = {part: ClipTextConfig.of(checkpoint.config(part)).layers for part in texts}
    if texts == ["text_encoder"]:
        (part,) = texts
        # Stable Diffusion 2 has OpenCLIP's encoder, with its activation.
        if checkpoint.config(part).get("hidden_act") == "gelu":
            own = ("cond_stage_model.model.", open_clip_rows(layers[part], projected=False))
        else:
            own = ("cond_stage_model.transformer.", transformers_rows(layers[part], projected=False))
        return {**layout, part: own}
    # SDXL has both encoders, its refiner only the second one.
    for place, part in enumerate(texts):
        prefix = f"conditioner.embedders.{place}"
        if part == "text_encoder":
            layout[part] = (f"{prefix}.transformer.", transformers_rows(layers[part], projected=False))
        else:
            layout[part] = (f"{prefix}.model.", open_clip_rows(layers[part], projected=True))
    return layout


def _renamed(tensors: Mapping[str, _Tensor], rows: Iterable[Row]) -> dict[str, _Tensor]:
    """A part's tensors by the names in the file. Of several names, the first counts."""
    by_name: dict[str, tuple[int, Row]] = {}
    for number, row in enumerate(rows):
        by_name.setdefault(row.to, (number, row))
    pieces: dict[str, list[tuple[int, Row, _Tensor]]] = {}
    for name, tensor in tensors.items():
        head = name
        while head not in by_name:
            head, dot, _ = head.rpartition(".")
            assert dot, name
        number, row = by_name[head]
        pieces.setdefault(row.of + name[len(head) :], []).append((number, row, tensor))
    return {name: _joined(sorted(found, key=lambda one: one[0])) for name, found in pieces.items()}


def _joined(found: Sequence[tuple[int, Row, _Tensor]]) -> _Tensor:
    """One tensor of the file: transposed, or queries, keys and values together."""
    _, row, first = found[0]
    if row.take is TRANSPOSED:
        return _Tensor(shape=first.shape[::-1], make=lambda: first.make().T)
    if len(found) == 1:
        return first
    shape = (sum(one.shape[0] for _, _, one in found), *first.shape[1:])
    return _Tensor(shape=shape, make=lambda: np.concatenate([one.make() for _, _, one in found]))


def _write_tensors(path: Path, tensors: Mapping[str, _Tensor], dtype: str) -> None:
    """Write a safetensors file, tensor by tensor."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_safetensors(path, shapes, lambda name: tensors[name].make(), dtype=dtype)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


if __name__ == "__main__":
    kind, architecture, seed, destination = sys.argv[1:]
    write = write_folder if kind == "folder" else write_single_file
    write(RandomCheckpoint(architecture=architecture, seed=int(seed)), Path(destination))
