"""Export targets: how the layers of a graph are written, with a row for each kind of machine.

Nothing is matched after a graph is written: a layer has a target's operator, or the export fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sdrt.errors import RequestError
from sdrt_export.architectures.config import OPTIMUM
from sdrt_export.graphs.cuda import CudaLayers
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import OPSET, Graph
from sdrt_export.graphs.layers import Layers

__all__ = ["AUTO", "OPSET", "OPTIMUM", "TARGETS", "Target", "resolve_target"]

AUTO = "auto"
"""The dtype that suits a target best."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row of the target table.

    Attributes:
        layers: writes layers.
        dtypes: those that it can be exported in, the first by default ("auto").
        halves: whether graphs in float16 compute in float16. Otherwise, they store weights in float16, widen them
            once at load and compute in float32.
        channels_last: whether images are in that layout, and some weights are packed.
        turns: whether its provider multiplies just as fast with a matrix as checkpoints store it (FusedMatMul).
        host_indices: whether the text encoder takes the position where each text ends, because a search on the device
            would go through the CPU.
    """

    name: str
    layers: Callable[[Graph], Layers]
    dtypes: tuple[str, ...]
    halves: bool = False
    channels_last: bool = False
    turns: bool = False
    host_indices: bool = False

    @property
    def instead(self) -> str:
        """The options to try if an exported graph does not run, or differs from torch."""
        return OPTIMUM if self.name == "portable" else "--target portable"


TARGETS: Mapping[str, Target] = {
    "cpu": Target(name="cpu", layers=FusedLayers, dtypes=("fp32", "fp16", "int8"), turns=True),
    # bfloat16 is missing, because ONNX Runtime's GroupNorm and NhwcConv have no kernels for it.
    "cuda": Target(
        name="cuda",
        layers=CudaLayers,
        dtypes=("fp16", "fp32"),
        halves=True,
        channels_last=True,
        host_indices=True,
    ),
    # Standard operators only, for TensorRT, OpenVINO and other runtimes.
    "portable": Target(name="portable", layers=Layers, dtypes=("fp32", "fp16"), halves=True),
}


def resolve_target(name: str, dtype: str) -> Target:
    """The target called ``name``.

    Raises:
        RequestError: the target is unknown, or cannot be exported in ``dtype``.
    """
    if not isinstance(name, str) or name not in TARGETS:
        raise RequestError.expected(
            f"unknown target {name!r}", f"one of {', '.join(sorted(TARGETS))}", argument="target"
        )
    target = TARGETS[name]
    if dtype not in (AUTO, *target.dtypes):
        raise RequestError.expected(
            f"target {name!r} has no dtype {dtype!r}", f"{', '.join(target.dtypes)}, {AUTO}", argument="dtype"
        )
    return target
