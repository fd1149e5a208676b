"""How a tuned graph stores the weights of its graph, so that adapters can change them there.

ONNX Runtime's convolutions read kernels in blocks of output channels (OIHWBo), most also in blocks of input channels
(OIHWBiBo). A block has as many channels as a register has floats. Weights in float16 are widened once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.onnx.graph_file import FLOAT32, ElsewhereWeight, GraphFile
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
_HALF, _BFLOAT16 = 10, 16
_KINDS = {FLOAT32: "<f4", _HALF: "<f2", _BFLOAT16: "<u2"}


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
        return self.arranged(np.ascontiguousarray(weight, np.float32))

    def arranged(self, wide: NDArray[Any]) -> NDArray[Any]:
        """A weight as the tuned graph arranges it, in the same shape and type."""
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
        kinds = (type(name), type(block), type(of_inputs))
        if kinds != (str, int, bool) or block not in (0, *_BLOCKS):
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
    weights = {name: weight for name, weight in before.weights.items() if weight.dtype in _KINDS}
    for name, weight in weights.items():
        stored = next((one for one in (name, name + _WIDENED) if one in tuned.weights), None)
        if stored is None or not _takes(tuned.weights[stored], weight):
            continue
        if np.array_equal(read(name), read_tuned(stored)):
            found[name] = TunedWeight(stored)
    convolutions = {node.name: node for node in tuned.nodes if node.op == "Conv"}
    for node in before.nodes:
        made = convolutions.get(node.name + _SUFFIX)
        name = node.inputs[1].removesuffix(_WIDENED) if node.op == "Conv" else ""
        if (
            made is None
            or name not in weights
            or not _takes(tuned.weights.get(made.inputs[1]), weights[name])
        ):
            continue
        found.pop(name, None)
        if how := _blocks(read(name), read_tuned(made.inputs[1]), made.inputs[1]):
            found[name] = how
    # One that is stored for each of its readers would be changed for one of them only.
    uses, left = _uses(before), _uses(tuned)
    return {name: one for name, one in found.items() if uses[name] + uses[name + _WIDENED] == left[one.name]}


def _takes(stored: ElsewhereWeight | None, weight: ElsewhereWeight) -> bool:
    """Whether a tuned graph's weight can be a graph's."""
    return stored is not None and (stored.dtype, stored.shape) == (FLOAT32, weight.shape)


def _uses(graph: GraphFile) -> Counter[str]:
    """How often operators read each value, apart from the Cast that widens it."""
    return Counter(name for node in graph.nodes for name in node.inputs if node.outputs != (name + _WIDENED,))


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
    fitting = [one for one in every if one.fits(kernel)]
    matching = [one for one in fitting if np.array_equal(one(kernel), stored)]
    if not matching:
        return None
    # A kernel of zeros looks the same in every arrangement.
    places = np.arange(kernel.size, dtype=np.float64).reshape(kernel.shape)
    arranged = [one.arranged(places) for one in matching]
    return matching[0] if all(np.array_equal(arranged[0], one) for one in arranged) else None
