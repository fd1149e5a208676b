"""How layers are written for ONNX Runtime's CPU provider."""

from __future__ import annotations

from sdrt_export.graphs.graph import MICROSOFT
from sdrt_export.graphs.layers import Affine, Attention, Layers, Sum, Value

__all__ = ["CpuLayers"]


class CpuLayers(Layers):
    """Fused attention, norms and activations."""

    def _product(self, x: str, path: str, channels: int, out: int) -> str:
        # It takes a matrix as torch stores it, as fast as a transposed one.
        weight = self.weight(f"{path}.weight", out, channels)
        return self.graph.op("FusedMatMul", x, weight, domain=MICROSOFT, transB=1)

    def attend(self, query: Value, key: Value, value: Value, attention: Attention) -> Value:
        """One operator."""
        self.graph.path = attention.path
        made = self.graph.op(
            "MultiHeadAttention",
            query.name,
            key.name,
            value.name,
            domain=MICROSOFT,
            num_heads=attention.heads,
            scale=attention.scale,
            unidirectional=int(attention.causal),
        )
        return Value(attention.width, made)

    def quick_gelu(self, x: Value, alpha: float = 1.702) -> Value:
        """One operator. SiLU is its case alpha = 1."""
        return Value(x.channels, self.graph.op("QuickGelu", x.name, domain=MICROSOFT, alpha=alpha))

    def layer_norm(self, path: str, x: Value, eps: float) -> Value:
        """With a sum that nothing has used yet, one operator adds and normalises."""
        if not (isinstance(x, Sum) and x.is_open):
            return super().layer_norm(path, x, eps)
        product, bias = (x.x.product(), [x.x.bias]) if isinstance(x.x, Affine) else (x.x.name, [])
        graph, skip = self.graph, x.skip.name
        graph.path = path
        scale, shift = self.weight(f"{path}.weight", x.channels), self.weight(f"{path}.bias", x.channels)
        inputs = [product, skip, scale, shift, *bias]
        normed, mean, deviation, total = graph.ops(
            "SkipLayerNormalization", *inputs, domain=MICROSOFT, count=4, epsilon=eps
        )
        graph.unused(mean)
        graph.unused(deviation)
        x.close(total)
        return Value(x.channels, normed)
