"""Inputs and outputs of a graph, as its session reports them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdrt.errors import UnsupportedModelError

__all__ = ["TensorSpec", "read_tensor_specs"]

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a graph. A dimension is a number, or a name if it is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    def describe(self) -> str:
        """The dtype and shape for messages: `float32[batch, 4, height, width]`."""
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"

    def accepts(self, dtype: np.dtype[Any], shape: Sequence[int]) -> bool:
        """Whether an array has this kind of number, this rank and these fixed dimensions.

        Widths may differ, because they are converted, as float32 for a float16 graph. Kinds are not.
        """
        pairs = zip(self.shape, shape, strict=False)
        fits = len(shape) == len(self.shape) and all(isinstance(a, str) or a == b for a, b in pairs)
        # Signed and unsigned integers are one kind.
        return fits and (dtype.kind == self.dtype.kind or {dtype.kind, self.dtype.kind} == {"i", "u"})


def read_tensor_specs(arguments: Sequence[Any], **facts: Any) -> dict[str, TensorSpec]:
    """Specs of ONNX Runtime's `NodeArg`s, by name. Raises `UnsupportedModelError` for other types, with `facts`."""
    specs = {}
    for argument in arguments:
        if argument.type not in _DTYPES:
            raise UnsupportedModelError.expected(
                f"{argument.name!r} is a {argument.type}",
                f"one of {', '.join(_DTYPES)}",
                argument=argument.name,
                **facts,
            )
        shape = tuple(size if isinstance(size, int) else str(size) for size in argument.shape)
        specs[argument.name] = TensorSpec(
            name=argument.name, dtype=np.dtype(_DTYPES[argument.type]), shape=shape
        )
    return specs
