"""Each kind of LoRA by its definition: the shapes of its tensors, and the change that they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CONV_KINDS", "LINEAR_KINDS", "Kind"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
ROWS, COLUMNS = 2, 4
"""Of a Kronecker product's first half."""


@dataclass(frozen=True)
class Kind:
    """The shapes of a kind's tensors for a parameter's shape and a rank, and the change that it defines, in float64."""

    name: str
    shapes: Callable[[Shape, int], Mapping[str, Shape]]
    change: Callable[[Mapping[str, Array]], Array]
    has_alpha: bool = True

    def __repr__(self) -> str:
        return self.name


def half(shape: Shape) -> Shape:
    return (shape[0] // ROWS, shape[1] // COLUMNS, *shape[2:])


def flat(t: Array) -> Array:
    return t.reshape(len(t), -1)


def both(t: Mapping[str, Array]) -> Array:
    made: Array = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    return made


def core(t: Mapping[str, Array], number: int) -> Array:
    names = (f"hada_t{number}", f"hada_w{number}_a", f"hada_w{number}_b")
    return np.einsum("abhw,ao,bi->oihw", *(t[name] for name in names))


LOW_RANK = Kind(
    "low rank",
    lambda shape, rank: {
        "lora_up.weight": (shape[0], rank, *(1,) * len(shape[2:])),
        "lora_down.weight": (rank, *shape[1:]),
    },
    lambda t: flat(t["lora_up.weight"]) @ flat(t["lora_down.weight"]),
)
TUCKER = Kind(
    "Tucker",
    lambda shape, rank: {
        "lora_up.weight": (shape[0], rank, 1, 1),
        "lora_down.weight": (rank, shape[1], 1, 1),
        "lora_mid.weight": (rank, rank, *shape[2:]),
    },
    lambda t: np.einsum(
        "abhw,oa,bi->oihw", t["lora_mid.weight"], flat(t["lora_up.weight"]), flat(t["lora_down.weight"])
    ),
)
HADAMARD = Kind(
    "Hadamard",
    lambda shape, rank: {
        f"hada_w{number}_{letter}": (shape[0], rank) if letter == "a" else (rank, math.prod(shape[1:]))
        for number in (1, 2)
        for letter in "ab"
    },
    both,
)
TUCKER_HADAMARD = Kind(
    "Tucker's Hadamard",
    lambda shape, rank: {
        f"hada_{name}{number}{end}": size
        for number in (1, 2)
        for name, end, size in (
            ("w", "_a", (rank, shape[0])),
            ("w", "_b", (rank, shape[1])),
            ("t", "", (rank, rank, *shape[2:])),
        )
    },
    lambda t: core(t, 1) * core(t, 2),
)
KRONECKER = Kind(
    "Kronecker",
    lambda shape, rank: {
        "lokr_w1": (ROWS, COLUMNS),
        "lokr_w2_a": (half(shape)[0], rank),
        "lokr_w2_b": (rank, math.prod(half(shape)[1:])),
    },
    lambda t: np.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"]),
)
KRONECKER_OF_PRODUCTS = Kind(
    "Kronecker of products",
    lambda shape, rank: {
        "lokr_w1_a": (ROWS, rank),
        "lokr_w1_b": (rank, COLUMNS),
        "lokr_w2_a": (half(shape)[0], rank),
        "lokr_w2_b": (rank, math.prod(half(shape)[1:])),
    },
    lambda t: np.kron(t["lokr_w1_a"] @ t["lokr_w1_b"], t["lokr_w2_a"] @ t["lokr_w2_b"]),
)
TUCKER_KRONECKER = Kind(
    "Tucker's Kronecker",
    lambda shape, rank: {
        "lokr_w1": (ROWS, COLUMNS),
        "lokr_w2_a": (rank, half(shape)[0]),
        "lokr_w2_b": (rank, half(shape)[1]),
        "lokr_t2": (rank, rank, *shape[2:]),
    },
    lambda t: np.kron(
        t["lokr_w1"],
        flat(np.einsum("abhw,ao,bi->oihw", t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"])),
    ),
)
WHOLE_KRONECKER = Kind(
    "whole Kronecker",
    lambda shape, rank: {"lokr_w1": (ROWS, COLUMNS), "lokr_w2": half(shape)},
    lambda t: np.kron(t["lokr_w1"], flat(t["lokr_w2"])),
    has_alpha=False,
)
WHOLE = Kind("whole", lambda shape, rank: {"diff": shape}, lambda t: t["diff"], has_alpha=False)
LINEAR_KINDS = [LOW_RANK, HADAMARD, KRONECKER, KRONECKER_OF_PRODUCTS, WHOLE_KRONECKER, WHOLE]
CONV_KINDS = [*LINEAR_KINDS, TUCKER, TUCKER_HADAMARD, TUCKER_KRONECKER]
