"""Layers that note the values which float16 would have to hold, to measure how large they become."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from sdrt_export.graphs.graph import FLOAT, Graph
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Attention, Value

__all__ = ["WatchedLayers", "add_extremes"]

# The last layer of a module of diffusers or transformers that returns a sum with it.
_LAST_LAYER = re.compile(
    r"\.(attn\d\.to_out\.0|to_out\.0|self_attn\.out_proj|mlp\.fc2|ff\.net\.2|proj_out|conv\.\d|conv\d|norm\d|conv_shortcut"
    r"|skip|time_emb_proj|cond_proj|linear_2)$"
)


class WatchedLayers(Layers):
    """Layers in standard operators. `seen` has the path of the module that returns a value, by the value's name.

    The paths are those of diffusers and transformers. Scores of attention, which kernels without a fused softmax store,
    have the path of the attention with ``.scores``.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.seen: dict[str, str] = {}

    def _see(self, path: str, made: Value) -> Value:
        self.seen[made.name] = path
        return made

    def linear(self, path: str, x: Value, out: int, *, bias: bool = True) -> Value:
        """See `Layers`."""
        return self._see(path, super().linear(path, x, out, bias=bias))

    def dense(self, path: str, x: Value, out: int, *, bias: bool = True) -> Value:
        """See `Layers`."""
        return self._see(path, super().dense(path, x, out, bias=bias))

    def conv(self, path: str, x: Value, out: int, **window: Any) -> Value:
        """See `Layers`."""
        return self._see(path, super().conv(path, x, out, **window))

    def group_norm(self, path: str, x: Value, groups: int, eps: float, *, silu: bool = False) -> Value:
        """See `Layers`. The value before SiLU is the larger one."""
        made = self._see(path, super().group_norm(path, x, groups, eps))
        return self.silu(made) if silu else made

    def layer_norm(self, path: str, x: Value, eps: float) -> Value:
        """See `Layers`."""
        return self._see(path, super().layer_norm(path, x, eps))

    def geglu(self, path: str, x: Value, out: int) -> Value:
        """See `Layers`."""
        return self._see(path.rpartition(".")[0], super().geglu(path, x, out))

    def add(self, x: Value, skip: Value) -> Value:
        """See `Layers`."""
        return self._see(self._sum_of(x), super().add(x, skip))

    def add_to_pixels(self, x: Value, vector: Value) -> Value:
        """See `Layers`."""
        return self._see(self._sum_of(x), super().add_to_pixels(x, vector))

    def multiply_pixels(self, x: Value, vector: Value) -> Value:
        """See `Layers`."""
        return self._see(self._sum_of(x), super().multiply_pixels(x, vector))

    def _scores(self, query: str, key: str, attention: Attention) -> str:
        made = super()._scores(query, key, attention)
        self.seen[made] = f"{attention.path}.scores"
        return made

    def output(self, name: str, x: Value, dims: Sequence[int | str]) -> None:
        """See `Layers`."""
        self.seen[name] = self.seen.get(x.name, name)
        super().output(name, x, dims)

    def image_output(self, name: str, x: Value, sizes: tuple[str, str] = ("height", "width")) -> None:
        """See `Layers`."""
        self.seen[name] = self.seen.get(x.name, name)
        super().image_output(name, x, sizes)

    def _sum_of(self, x: Value) -> str:
        return _LAST_LAYER.sub("", self.seen.get(x.name, self.graph.path))


def add_extremes(model: onnx.ModelProto, seen: Mapping[str, str]) -> dict[str, str]:
    """Let a model return the least and the greatest number of each value that was `seen`.

    They are computed right after the value, so that it need not be kept. Returns the path of each of these outputs.
    """
    graph, found, nodes = model.graph, {}, []
    for node in graph.node:
        nodes.append(node)
        for name in node.output:
            for operator in ("ReduceMin", "ReduceMax") if name in seen else ():
                end = f"{name}/{operator}"
                nodes.append(helper.make_node(operator, [name], [end], name=end, keepdims=0))
                graph.output.append(helper.make_tensor_value_info(end, FLOAT, []))
                found[end] = seen[name]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return found
