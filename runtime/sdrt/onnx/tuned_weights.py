"""How a tuned graph stores the weights of its graph, so that adapters can change them there.

ONNX Runtime's convolutions read kernels in blocks of output channels (OIHWBo), most also in blocks of input channels
(OIHWBiBo). A block has as many channels as a register has floats. Weights in float16 are widened once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.onnx.graph_file import ElsewhereWeight, GraphFile
from sdrt.onnx.memory_graph import MemoryGraph

__all__ = ["TunedWeight", "tuned_weights", "weights_reader"]

Floats = NDArray[np.float32]
Read = Callable[[str], Floats]

_BLOCKS = (8, 16, 4)
# How ONNX Runtime names the convolution that takes the place of another.
_SUFFIX = "_nchwc"
# How exported graphs name a weight after its Cast to float32.
_WIDENED = ".widened"
# ONNX's numbers of number types, and how NumPy reads them.
_FLOAT, _HALF, _BFLOAT16 = 1, 10, 16
_KINDS = {_FLOAT: "<f4", _HALF: "<f2", _BFLOAT16: "<u2"}


@dataclass(frozen=True)
class TunedWeight:
    """How a tuned graph stores one weight.

    Attributes:
        name: its name there.
        block: how many channels a block of a kernel has. 0 for a weight that stays as it is.
        of_inputs: whether input channels are in blocks too.
    """

    name: str
    block: int = 0
    of_inputs: bool = False

    def __call__(self, weight: NDArray[Any]) -> Floats:
        """A weight as the tuned graph stores it, in the same shape. Kernels are [O, I, H, W]."""
        wide: Floats = np.ascontiguousarray(weight, np.float32)
        if not self.block:
            return wide
        outputs, inputs, height, width = wide.shape
        size = self.block
        if self.of_inputs:
            parts = wide.reshape(outputs // size, size, inputs // size, size, height, width)
            arranged = parts.transpose(0, 2, 4, 5, 3, 1)
        else:
            arranged = wide.reshape(outputs // size, size, inputs, height, width).transpose(0, 2, 3, 4, 1)
        return np.ascontiguousarray(arranged).reshape(wide.shape)

    def fits(self, kernel: Floats) -> bool:
        """Whether a kernel of this shape can be stored so."""
        return not (kernel.shape[0] % self.block or (self.of_inputs and kernel.shape[1] % self.block))

    @classmethod
    def read(cls, entry: Any) -> TunedWeight:
        """The weight that `record` described. Raises `TypeError` for something else."""
        name, block, of_inputs = entry
        if not (isinstance(name, str) and block in (0, *_BLOCKS) and isinstance(of_inputs, bool)):
            raise TypeError(entry)
        return cls(name, block, of_inputs)

    def record(self) -> list[Any]:
        """The weight as JSON has it."""
        return list(astuple(self))


def tuned_weights(
    before: GraphFile, read: Read, tuned: GraphFile, read_tuned: Read
) -> dict[str, TunedWeight]:
    """How the tuned graph stores each weight, as far as its bits show it.

    Weights that are missing here were computed into something else, so nothing can change them in the tuned graph.

    Args:
        before: the graph before it was tuned.
        read: gives its weights in float32.
        tuned: the tuned graph.
        read_tuned: gives that one's weights.
    """
    found: dict[str, TunedWeight] = {}
    for name, weight in before.weights.items():
        stored = next((one for one in (name, name + _WIDENED) if one in tuned.weights), None)
        if stored is None or tuned.weights[stored].shape != weight.shape or weight.dtype not in _KINDS:
            continue
        if np.array_equal(read(name), read_tuned(stored)):
            found[name] = TunedWeight(stored)
    convolutions = {node.name: node for node in tuned.nodes if node.op == "Conv"}
    for node in before.nodes:
        made = convolutions.get(node.name + _SUFFIX)
        name = node.inputs[1].removesuffix(_WIDENED) if node.op == "Conv" else ""
        if made is None or name not in before.weights or made.inputs[1] not in tuned.weights:
            continue
        if how := _blocks(read(name), read_tuned(made.inputs[1]), made.inputs[1]):
            found[name] = how
    return found


def weights_reader(graph: GraphFile, folder: Path, memory: MemoryGraph | None = None) -> Read:
    """A function that gives the weights of a graph in float32, a view of the file where that has the same.

    Raises `OSError` or `ValueError` if they are not there.
    """
    values: Mapping[str, Any] = {} if memory is None else memory.values
    types: Mapping[str, int] = {} if memory is None else memory.types

    def read(name: str) -> Floats:
        if name in values:
            return _wide(values[name], types.get(name, 0))
        weight = graph.weights[name]
        if memory is not None and name in graph.within:
            return _wide(_inside(memory.content, weight), weight.dtype)
        return _wide(_mapped(folder / weight.location, weight), weight.dtype)

    return read


def _mapped(path: Path, weight: ElsewhereWeight) -> NDArray[Any]:
    return np.memmap(path, _KINDS[weight.dtype], "r", offset=weight.offset, shape=weight.shape)


def _inside(content: bytes, weight: ElsewhereWeight) -> NDArray[Any]:
    count = math.prod(weight.shape)
    return np.frombuffer(content, _KINDS[weight.dtype], count, weight.offset).reshape(weight.shape)


def _wide(array: NDArray[Any], dtype: int) -> Floats:
    if dtype == _BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array, np.float32)


def _blocks(kernel: Floats, stored: Floats, name: str) -> TunedWeight | None:
    every = (TunedWeight(name, block, of_inputs) for block in _BLOCKS for of_inputs in (True, False))
    fitting = (one for one in every if kernel.shape == stored.shape and one.fits(kernel))
    return next((one for one in fitting if np.array_equal(one(kernel), stored)), None)
