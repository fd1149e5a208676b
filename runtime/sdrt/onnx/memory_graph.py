"""A graph that is in no file: its bytes, and where its weights are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

__all__ = ["MemoryGraph", "only_multiplied"]

_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")


@dataclass(frozen=True, kw_only=True)
class MemoryGraph:
    """A graph in memory.

    ONNX Runtime maps weights in files and reads them one by one. It copies `values` before it reads them, all at the
    same time, but on the CPU it reads those of `uncopied` where they are.

    Attributes:
        content: the bytes of the ONNX model.
        folder: the folder of the files with weights. The model contains their names and offsets.
        values: weights that are in no file, by name, contiguous.
        remedy: what to do if the weights turn out to be damaged.
        types: ONNX's number for the type of a value, by name, where NumPy has no such type. The value holds its bits.
        uncopied: the float32 values that only products read. ONNX Runtime uses them for nothing but its kernels, and
            its optimizers would still find what `content` says. So `content` says something that cannot be read.
        inside: weights that adapters have changed in `content` itself, by name.
        files: the files that all weights come from, before adapters change them. Empty if some come from elsewhere.
        structure: what distinguishes the graph from others with these files, whatever adapters change. Empty for the
            graph of a file, whose weights adapters have changed. None: `content` does.
        on_cpu: makes the graph in the form that ONNX Runtime's CPU provider runs, sooner than ONNX Runtime would. It
            knows nothing of other `values` that the graph gets later, so it must not stay with them. A graph is not
            tuned in that form.
    """

    content: bytes
    folder: Path
    remedy: str = ""
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    uncopied: frozenset[str] = frozenset()
    inside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    structure: str | None = None
    on_cpu: Callable[[], MemoryGraph] | None = None


def only_multiplied(nodes: Iterable[tuple[str, tuple[str, ...]]]) -> frozenset[str]:
    """The values that nothing but a product reads, as its right side. `nodes` are operators with their inputs.

    No optimizer of ONNX Runtime reads such a weight in a graph that sdrt exports.
    """
    multiplied, otherwise = set[str](), set[str]()
    for op, inputs in nodes:
        right = inputs[1:2] if op in _PRODUCTS else ()
        multiplied.update(right)
        otherwise.update(name for place, name in enumerate(inputs) if not (right and place == 1))
    return frozenset(multiplied - otherwise)
