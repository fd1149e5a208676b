"""Activations in standard operators."""

from __future__ import annotations

from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.values import Value

__all__ = ["Activations"]


class Activations:
    """Writes activations into a graph. Each is computed for every number of a value by itself."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def silu(self, x: Value) -> Value:
        """``x · sigmoid(x)``."""
        return self.quick_gelu(x, 1.0)

    def quick_gelu(self, x: Value, alpha: float = 1.702) -> Value:
        """``x · sigmoid(alpha · x)``."""
        graph = self.graph
        scaled = x.name if alpha == 1.0 else graph.op("Mul", x.name, graph.number(alpha))
        return x.like(graph.op("Mul", x.name, graph.op("Sigmoid", scaled)))

    def gelu(self, x: Value) -> Value:
        """``x · Φ(x)``, exactly."""
        return x.like(self.graph.op("Gelu", x.name))

    def relu(self, x: Value) -> Value:
        """``max(x, 0)``."""
        return x.like(self.graph.op("Relu", x.name))

    def tanh(self, x: Value) -> Value:
        """The hyperbolic tangent."""
        return x.like(self.graph.op("Tanh", x.name))
