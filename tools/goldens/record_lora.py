"""Record `lora.npz`: what lycoris-lora makes of layers with random adapters attached.

Usage, in an environment of its own, because sdrt needs none of them:

    pip install lycoris-lora==4.1.3 torch==2.13.0 numpy
    python -m tools.goldens.record_lora

The adapters are attached, and each layer's weight is read off its outputs: `merge_to` of that version applies alpha /
rank twice to LoHa and LoKr.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.goldens.effective_weights import effective
from tools.goldens.lora_cases import LYCORIS, SHAPES, Algorithm, base

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "lora.npz"
Arrays = dict[str, NDArray[Any]]


def layer(name: str, seed: int) -> torch.nn.Module:
    """A layer of the tiny U-Net with known weights."""
    shape = SHAPES[name]
    made: torch.nn.Module
    if len(shape) == 1:
        made = torch.nn.GroupNorm(4, shape[0])
    elif len(shape) == 2:
        made = torch.nn.Linear(shape[1], shape[0], bias=False)
    else:
        made = torch.nn.Conv2d(shape[1], shape[0], shape[2], padding=shape[2] // 2)
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.from_numpy(base(tuple(parameter.shape), seed + number)))
    return made


@torch.no_grad()
def randomise(adapter: torch.nn.Module, seed: int) -> None:
    """Give every parameter numbers, those of DoRA positive ones."""
    for number, (name, parameter) in enumerate(sorted(adapter.named_parameters())):
        values = torch.from_numpy(base(tuple(parameter.shape), 100 * seed + number))
        parameter.copy_(values.abs() + 1 if name == "dora_scale" else 2 * values)


def record(name: str, algorithm: Algorithm, arrays: Arrays) -> None:
    """Attach one kind of adapter to its layers."""
    kind = getattr(importlib.import_module("lycoris.modules"), algorithm.module)
    for seed, place in enumerate(algorithm.layers):
        made = layer(place, seed)
        adapter = kind("lora", made, multiplier=1.0, **algorithm.options)
        randomise(adapter, seed)
        adapter.apply_to()
        # Attached, because `full` writes the difference from the layer that it was attached to.
        state = adapter.state_dict()
        for weight in algorithm.weights:
            adapter.multiplier = weight
            for part, value in effective(made, SHAPES[place]).items():
                arrays[f"{name}|{place}|{weight}|{part}"] = value.copy()
        for key, value in state.items():
            arrays[f"{name}|{place}|file|{key}"] = value.detach().numpy().copy()


def main() -> None:
    """Record every kind."""
    arrays: Arrays = {}
    for name, algorithm in LYCORIS.items():
        record(name, algorithm, arrays)
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
