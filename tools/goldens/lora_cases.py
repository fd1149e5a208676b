"""The layers and files of `lora.npz`: what `record_lora` applies in other libraries, and tests in sdrt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LINEAR", "LYCORIS", "LYCORIS_WEIGHTS", "SHAPES", "Algorithm", "base"]

Shape = tuple[int, ...]

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
SHAPES: Mapping[str, Shape] = {
    LINEAR: (16, 32),
    "down_blocks.0.attentions.0.proj_in": (16, 16, 1, 1),
    "conv_in": (16, 4, 3, 3),
    "down_blocks.0.resnets.0.norm1": (16,),
}
"""A Linear, two convolutions and a norm of `tests/models/tiny`'s U-Net. Each has a bias, but for the Linear."""
LYCORIS_WEIGHTS = (1.0, -0.75)


@dataclass(frozen=True)
class Algorithm:
    """One of LyCORIS's modules, and the arguments with which it is made. DoRA is compared at weight 1 alone."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = tuple(SHAPES)[:3]

    @property
    def weights(self) -> tuple[float, ...]:
        return LYCORIS_WEIGHTS[:1] if self.options.get("weight_decompose") else LYCORIS_WEIGHTS


_RANKS = {"lora_dim": 3, "alpha": 2.0}
_FACTORED = {"lora_dim": 1, "alpha": 0.5, "factor": 2}
LYCORIS: Mapping[str, Algorithm] = {
    "locon": Algorithm("LoConModule", _RANKS),
    "locon tucker": Algorithm("LoConModule", {**_RANKS, "use_tucker": True}),
    "locon rank-stabilised": Algorithm("LoConModule", {**_RANKS, "rs_lora": True}),
    "locon dora": Algorithm("LoConModule", {**_RANKS, "weight_decompose": True}),
    "locon dora of columns": Algorithm(
        "LoConModule", {**_RANKS, "weight_decompose": True, "wd_on_out": False}
    ),
    "locon tucker dora": Algorithm("LoConModule", {**_RANKS, "use_tucker": True, "weight_decompose": True}),
    "loha": Algorithm("LohaModule", _RANKS),
    "loha tucker": Algorithm("LohaModule", {**_RANKS, "use_tucker": True}),
    "loha dora": Algorithm("LohaModule", {**_RANKS, "weight_decompose": True}),
    "lokr": Algorithm("LokrModule", {**_RANKS, "factor": 4}),
    "lokr both": Algorithm("LokrModule", {**_FACTORED, "decompose_both": True}),
    "lokr factored": Algorithm("LokrModule", _FACTORED),
    "lokr tucker": Algorithm("LokrModule", {**_FACTORED, "use_tucker": True}),
    "lokr whole": Algorithm("LokrModule", {"full_matrix": True, "alpha": 7.0}),
    "lokr unbalanced": Algorithm("LokrModule", {**_FACTORED, "unbalanced_factorization": True}),
    "lokr dora": Algorithm("LokrModule", {**_FACTORED, "weight_decompose": True}),
    "full": Algorithm("FullModule"),
    "norm": Algorithm("NormModule", layers=tuple(SHAPES)[3:]),
    "ia3": Algorithm("IA3Module"),
    "ia3 on inputs": Algorithm("IA3Module", {"train_on_input": True}),
}
"""LyCORIS's modules by a name."""


def base(shape: Shape, seed: int) -> NDArray[np.float32]:
    """The same numbers on every machine."""
    made: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(shape, np.float32) / np.float32(4)
    return made
