"""How layers are written for ONNX Runtime's CPU provider."""

from __future__ import annotations

from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import MICROSOFT

__all__ = ["CpuLayers"]


class CpuLayers(FusedLayers):
    """Fused attention, norms and activations, and matrices as torch stores them."""

    def _product(self, x: str, path: str, channels: int, out: int) -> str:
        # As fast as a MatMul with a transposed matrix.
        weight = self.weight(f"{path}.weight", out, channels)
        return self.graph.op("FusedMatMul", x, weight, domain=MICROSOFT, transB=1)
