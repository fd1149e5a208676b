"""CLIP's text encoder (Radford et al. 2021, arXiv:2103.00020), with all hidden states.

Beside CLIP's own, it takes embeddings that a caller adds to the vocabulary, for textual inversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from sdrt_export.architectures.clip_layers import IGNORED, activation_of, clip_states
from sdrt_export.architectures.config import Config
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Value

__all__ = ["ADDED", "EOS_INDEX", "ClipTextConfig", "clip_text"]

ADDED = "added_token_embeddings"
EOS_INDEX = "eos_index"
_LONGEST = 1 << 16
_KNOWN = frozenset(
    {
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("max_position_embeddings", "hidden_act", "layer_norm_eps", "eos_token_id", "projection_dim"),
    }
)
_FIXED: Mapping[str, Any] = {"model_type": ("clip_text_model", None), "pruned_heads": ({}, None)}
# Configs from before transformers 4.31 have the value 2, which was never CLIP's end token.
_OLD_EOS = 2


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """The shape of a text encoder. `projection` is the width of the projected pooled output; 0 without one."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    length: int
    activation: str
    eps: float
    eos: int
    projection: int = 0

    @classmethod
    def of(
        cls, values: Mapping[str, Any], component: str = "text_encoder", *, projected: bool = False
    ) -> ClipTextConfig:
        """Read transformers' config. Raises `UnsupportedModelError` for unsupported values."""
        config = Config(component, values)
        config.check_keys(_KNOWN, _FIXED, IGNORED)
        made = cls(
            vocabulary=config.whole("vocab_size", 49408),
            width=config.whole("hidden_size", 512, most=1 << 14),
            inner=config.whole("intermediate_size", 2048, most=1 << 16),
            layers=config.whole("num_hidden_layers", 12, most=128),
            heads=config.whole("num_attention_heads", 8, most=1 << 10),
            length=config.whole("max_position_embeddings", 77, most=_LONGEST),
            activation=activation_of(config),
            eps=config.number("layer_norm_eps", 1e-5, least=0, most=1),
            eos=config.whole("eos_token_id", 49407),
            projection=config.whole("projection_dim", 512, most=1 << 14) if projected else 0,
        )
        if made.width % made.heads:
            raise config.refused("num_attention_heads", f"a divisor of hidden_size, {made.width}")
        return made


def clip_text(config: ClipTextConfig, g: Layers, *, host_index: bool = False) -> None:
    """Write the graph. With `host_index`, the caller says where each text ends, instead of a search for the end token.

    Inputs: `input_ids` int64 [batch, sequence]; ids from the vocabulary's size on are rows of `added_token_embeddings`.
    Outputs: `last_hidden_state`, `hidden_states.k`, `last_hidden_state.skip_k` (the norm of the state k layers before
    the last), and `pooler_output` [batch, width] or `text_embeds` [batch, projection].
    """
    ids = g.graph.input("input_ids", ["batch", "sequence"], TensorProto.INT64)
    h = _embedded(config, g, ids)
    states = clip_states(config, g, "text_model", h, causal=True)
    last = _final_norm(config, g, states[-1])
    pooled = _pooled(config, g, ids, last, host_index=host_index)
    tokens: list[int | str] = ["batch", "sequence", config.width]
    g.output("last_hidden_state", last, tokens)
    if config.projection:
        g.output(
            "text_embeds",
            g.dense("text_projection", pooled, config.projection, bias=False),
            ["batch", config.projection],
        )
    else:
        g.output("pooler_output", pooled, ["batch", config.width])
    skipped = [_final_norm(config, g, states[-1 - k]) for k in range(1, config.layers)]
    for index, state in enumerate(states):
        g.output(f"hidden_states.{index}", state, tokens)
    for k, state in enumerate(skipped, start=1):
        g.output(f"last_hidden_state.skip_{k}", state, tokens)


def _embedded(config: ClipTextConfig, g: Layers, ids: str) -> Value:
    """Embeddings of tokens and of their positions."""
    graph, graph.path = g.graph, "text_model.embeddings"
    table = g.weight("text_model.embeddings.token_embedding.weight", config.vocabulary, config.width)
    none = np.zeros((1, config.width), np.float32)
    added = graph.input(ADDED, ["added", config.width], default=none)
    known = graph.op("Gather", table, graph.op("Min", ids, graph.constant(config.vocabulary - 1)))
    own = graph.op("Max", graph.op("Sub", ids, graph.constant(config.vocabulary)), graph.constant(0))
    extra = graph.op("Gather", g.computed(Value(config.width, added)).name, own)
    is_own = graph.op(
        "Unsqueeze", graph.op("GreaterOrEqual", ids, graph.constant(config.vocabulary)), graph.constant([2])
    )
    tokens = graph.op("Where", is_own, extra, known)
    return Value(config.width, graph.op("Add", tokens, _positions(config, g, ids)))


def _positions(config: ClipTextConfig, g: Layers, ids: str) -> str:
    graph = g.graph
    table = g.weight("text_model.embeddings.position_embedding.weight", config.length, config.width)
    length = graph.op("Shape", ids, start=1, end=2)
    return graph.op("Slice", table, graph.constant([0]), length, graph.constant([0]))


def _final_norm(config: ClipTextConfig, g: Layers, x: Value) -> Value:
    return g.layer_norm("text_model.final_layer_norm", x, config.eps)


def _pooled(config: ClipTextConfig, g: Layers, ids: str, last: Value, *, host_index: bool) -> Value:
    """The state `[batch, width]` of the token that ends each text."""
    graph, graph.path = g.graph, "text_model"
    if host_index:
        # A product with ones and zeros, which every provider runs itself.
        index = graph.input(EOS_INDEX, ["batch"], TensorProto.INT64)
        length = graph.op("Squeeze", graph.op("Shape", ids, start=1, end=2))
        positions = graph.op("Range", graph.constant(0), length, graph.constant(1))
        hits = graph.op("Equal", positions, graph.op("Unsqueeze", index, graph.constant([1])))
        row = graph.op("Unsqueeze", graph.cast(hits, graph.compute), graph.constant([1]))
        return Value(
            config.width, graph.op("Squeeze", graph.op("MatMul", row, last.name), graph.constant([1]))
        )
    if config.eos == _OLD_EOS:
        # With old configs it is the largest id, except for added tokens.
        is_own = graph.op("GreaterOrEqual", ids, graph.constant(config.vocabulary))
        hits = graph.op("Where", is_own, graph.constant(0), ids)
    else:
        hits = graph.op("Equal", ids, graph.constant(config.eos))
    first = graph.op("ArgMax", graph.cast(hits, TensorProto.INT32), axis=1, keepdims=1)
    return Value(config.width, graph.op("GatherND", last.name, first, batch_dims=1))
