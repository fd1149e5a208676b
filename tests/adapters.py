"""Adapters that tests make by hand: arrays that are added to parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdrt.adapters.change import Adapter, Array, Shape
from tests.safetensors_files import save_file

__all__ = ["Added", "noise_adapter", "of_arrays", "write_lora"]

# Of a text encoder, diffusers reads all four projections or none.
_UNET, _TEXT = (
    ("to_q", "to_k", "to_v", "to_out.0", "conv1"),
    ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
)
_TRAINED = tuple(f"{name}.weight" for name in (*_UNET, *_TEXT))


@dataclass(frozen=True, eq=False)
class Added:
    """Adds an array, times the weight."""

    array: NDArray[np.float32]

    @property
    def shape(self) -> Shape:
        return self.array.shape

    def delta(self, base: Array, weight: float) -> NDArray[np.float32]:
        assert base.dtype == np.float32
        return np.float32(weight) * self.array

    def as_factors(self, weight: float) -> None:
        return None


def of_arrays(arrays: Mapping[str, Mapping[str, NDArray[np.float32]]], name: str = "noise") -> Adapter:
    """An adapter that adds arrays, by component and parameter."""
    return Adapter(
        name=name,
        path=Path(f"{name}.safetensors"),
        changes={
            component: {parameter: Added(array) for parameter, array in own.items()}
            for component, own in arrays.items()
        },
    )


def noise_adapter(
    shapes: Mapping[str, Mapping[str, Shape]], *, seed: int = 0, scale: float = 0.02, name: str = "noise"
) -> Adapter:
    """An adapter that adds noise to every parameter of `shapes`."""
    source = np.random.default_rng(seed)

    def draw(shape: Shape) -> NDArray[np.float32]:
        return (scale * source.standard_normal(shape)).astype(np.float32)

    return of_arrays(
        {
            component: {parameter: draw(shape) for parameter, shape in own.items()}
            for component, own in shapes.items()
        },
        name,
    )


def write_lora(
    path: Path, shapes: Mapping[str, Mapping[str, Shape]], *, seed: int = 0, scale: float = 0.3, rank: int = 2
) -> Path:
    """Write a LoRA as kohya's trainer does, for the attention, the resnets and the text encoders."""
    source, tensors = np.random.default_rng(seed), dict[str, NDArray[np.float32]]()
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
    if "text_encoder_2" in shapes:
        prefixes["text_encoder"] = "lora_te1"
    for component, own in shapes.items():
        for parameter, shape in own.items():
            if not parameter.endswith(_TRAINED):
                continue
            key = f"{prefixes[component]}_{parameter.removesuffix('.weight').replace('.', '_')}"
            ends = {"lora_down": (rank, *shape[1:]), "lora_up": (shape[0], rank, *(1 for _ in shape[2:]))}
            for end, size in ends.items():
                tensors[f"{key}.{end}.weight"] = (scale * source.standard_normal(size)).astype(np.float32)
            tensors[f"{key}.alpha"] = np.float32(rank / 2).reshape(())
    save_file(tensors, path)
    return path
