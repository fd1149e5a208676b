"""Layers in ONNX Runtime's own operators, which several of its providers have."""

from __future__ import annotations

from sdrt_export.graphs.graph import MICROSOFT
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Affine, Attention, Sum, Value

__all__ = ["FusedLayers"]


class FusedLayers(Layers):
    """Fused attention, activations, and sums with the norms that follow them."""

    def attend(self, query: Value, key: Value, value: Value, attention: Attention) -> Value:
        """Use one operator."""
        self.graph.path = attention.path
        return Value(attention.width, self._heads(attention, query.name, key.name, value.name))

    def _heads(self, attention: Attention, *inputs: str) -> str:
        causal = int(attention.causal)
        options = {"num_heads": attention.heads, "scale": attention.scale, "unidirectional": causal}
        return self.graph.op("MultiHeadAttention", *inputs, domain=MICROSOFT, **options)

    def quick_gelu(self, x: Value, alpha: float = 1.702) -> Value:
        """Use one operator. SiLU is its case alpha = 1."""
        return x.like(self.graph.op("QuickGelu", x.name, domain=MICROSOFT, alpha=alpha))

    def layer_norm(self, path: str, x: Value, eps: float) -> Value:
        """With a sum that nothing has used yet, one operator adds and normalises."""
        if not (isinstance(x, Sum) and x.is_open):
            return super().layer_norm(path, x, eps)
        product, bias = (x.x.product(), [x.x.bias]) if isinstance(x.x, Affine) else (x.x.name, [])
        graph, skip = self.graph, x.skip.name
        graph.path = path
        norm = [self.weight(f"{path}.{name}", x.channels) for name in ("weight", "bias")]
        normed, _, _, total = graph.ops(
            "SkipLayerNormalization", product, skip, *norm, *bias, domain=MICROSOFT, count=4, epsilon=eps
        )
        x.close(total)
        return Value(x.channels, normed)
