"""CLIP's vision encoder (Radford et al. 2021, arXiv:2103.00020), with its projection.

IP-Adapter reads the projected embedding, or the tokens before the last layer. The safety checker compares the projected
embedding with those of concepts (Rando et al. 2022, arXiv:2210.04610, describes it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt_export.architectures.clip_layers import IGNORED, activation_of, clip_states
from sdrt_export.architectures.config import Config
from sdrt_export.graphs.graph import FLOAT
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Value

__all__ = ["PENULTIMATE", "ClipVisionConfig", "clip_vision", "safety_checker", "vision_config"]

PENULTIMATE = "penultimate_hidden_state"
_KNOWN = frozenset(
    {
        *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
        *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"),
    }
)
_FIXED: Mapping[str, Any] = {"model_type": ("clip_vision_model", None), "pruned_heads": ({}, None)}
# The numbers of concepts in diffusers' class.
_CONCEPTS, _SPECIAL = 17, 3
# The least length by which torch's `normalize` divides.
_LEAST = 1e-12
_OF_CLIP = frozenset({"vision_config", "vision_config_dict", "projection_dim"})
# The text encoder, which neither the checker nor an adapter has, and what only training reads.
_NOT_VISION = frozenset({"text_config", "text_config_dict", "logit_scale_init_value"})


@dataclass(frozen=True, kw_only=True)
class ClipVisionConfig:
    """The shape of a vision encoder. It sees `size`² pixels in patches of `patch`², and one token for the whole."""

    width: int
    inner: int
    layers: int
    heads: int
    channels: int
    size: int
    patch: int
    activation: str
    eps: float
    projection: int

    @classmethod
    def of(cls, values: Mapping[str, Any], component: str = "image_encoder") -> ClipVisionConfig:
        """Read transformers' config. Raises `UnsupportedModelError` for unsupported values."""
        config = Config(component, values, remedy="")
        config.check_keys(_KNOWN, _FIXED, IGNORED)
        made = cls(
            width=config.whole("hidden_size", 768, most=1 << 14),
            inner=config.whole("intermediate_size", 3072, most=1 << 16),
            layers=config.whole("num_hidden_layers", 12, most=128),
            heads=config.whole("num_attention_heads", 12, most=1 << 10),
            channels=config.whole("num_channels", 3, most=16),
            size=config.whole("image_size", 224, most=1 << 12),
            patch=config.whole("patch_size", 32, most=1 << 12),
            activation=activation_of(config),
            eps=config.number("layer_norm_eps", 1e-5, least=0, most=1),
            projection=config.whole("projection_dim", 512, most=1 << 14),
        )
        if made.width % made.heads:
            raise config.refused("num_attention_heads", f"a divisor of hidden_size, {made.width}")
        if made.patch > made.size:
            raise config.refused("patch_size", f"at most image_size, {made.size}")
        return made

    @property
    def tokens(self) -> int:
        """The number of tokens: one for each whole patch, and one for the image."""
        return (self.size // self.patch) ** 2 + 1


def vision_config(values: Mapping[str, Any], component: str) -> dict[str, Any]:
    """The config of the vision encoder in that of a whole CLIP, as the safety checker has it.

    As in transformers, `vision_config_dict` of old files precedes, completed by the defaults, and the projection's
    width is that of the whole.

    Raises:
        UnsupportedModelError: a key is unknown, or the vision encoder's config is no object.
    """
    config = Config(component, values, remedy="")
    config.check_keys(
        _OF_CLIP, {"model_type": ("clip", None), "pruned_heads": ({}, None)}, IGNORED | _NOT_VISION
    )
    made: dict[str, Any] = {}
    for key in ("vision_config", "vision_config_dict"):
        part = config.get(key, {})
        if not isinstance(part, Mapping):
            raise config.refused(key, "an object")
        made |= {**(_DEFAULTS if part and key == "vision_config_dict" else {}), **part}
    return made | {"projection_dim": config.get("projection_dim", 512)}


_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def clip_vision(config: ClipVisionConfig, g: Layers) -> None:
    """Write the graph.

    Input: `pixel_values` [batch, channels, size, size], normalised.
    Outputs: `image_embeds` [batch, projection], and `penultimate_hidden_state` [batch, tokens, width].
    """
    states = _states(config, g, "pixel_values", "vision_model")
    embeds = _projected(config, g, "vision_model", states[-1])
    g.output("image_embeds", embeds, ["batch", config.projection])
    g.output(PENULTIMATE, states[-2], ["batch", config.tokens, config.width])


def safety_checker(config: ClipVisionConfig, g: Layers) -> None:
    """Write the graph of diffusers' `StableDiffusionSafetyChecker`, up to the cosines.

    Input: `clip_input` [batch, channels, size, size], normalised.
    Outputs: `special_cos_dist` [batch, 3] and `cos_dist` [batch, 17], the cosines between the image and the concepts,
    and `special_thresholds` [3] and `thresholds` [17]. All are computed in float32, because verdicts depend on their
    third decimal.
    """
    path = "vision_model.vision_model"
    states = _states(config, g, "clip_input", path)
    image = _unit(g, _projected(config, g, path, states[-1]).name)
    for concepts, count, special in (
        ("special_care_embeds", _SPECIAL, "special_"),
        ("concept_embeds", _CONCEPTS, ""),
    ):
        table = g.weight(concepts, count, config.projection, exact=True)
        cosines = g.graph.op(
            "MatMul", image, g.graph.op("Transpose", _unit(g, table, exact=True), perm=[1, 0])
        )
        g.output(f"{special}cos_dist", Value(count, cosines), ["batch", count])
        thresholds = g.graph.op("Identity", g.weight(f"{concepts}_weights", count, exact=True))
        g.output(f"{special}thresholds", Value(count, thresholds), [count])


def _states(config: ClipVisionConfig, g: Layers, name: str, path: str) -> list[Value]:
    """The tokens before the first layer and after each."""
    image = g.image_input(name, config.channels, (config.size, config.size))
    tokens = _embedded(config, g, image, f"{path}.embeddings")
    # The checkpoint's own spelling.
    tokens = g.layer_norm(f"{path}.pre_layrnorm", tokens, config.eps)
    return clip_states(config, g, path, tokens, causal=False)


def _embedded(config: ClipVisionConfig, g: Layers, image: Value, path: str) -> Value:
    """The token of the whole image, then those of its patches, with their positions."""
    patches = g.conv(
        f"{path}.patch_embedding",
        image,
        config.width,
        kernel=config.patch,
        stride=config.patch,
        pads=(0, 0),
        bias=False,
    )
    graph, tokens = g.graph, g.tokens(patches).name
    graph.path = path
    whole = g.weight(f"{path}.class_embedding", config.width)
    batch = graph.op("Shape", tokens, start=0, end=1)
    shape = graph.op("Concat", batch, graph.constant([1, config.width]), axis=0)
    joined = graph.op("Concat", graph.op("Expand", whole, shape), tokens, axis=1)
    positions = g.weight(f"{path}.position_embedding.weight", config.tokens, config.width)
    return Value(config.width, graph.op("Add", joined, positions))


def _projected(config: ClipVisionConfig, g: Layers, path: str, last: Value) -> Value:
    """The embedding `[batch, projection]` of the image."""
    g.graph.path = path
    first = g.graph.op("Gather", last.name, g.graph.constant(0), axis=1)
    normed = g.layer_norm(f"{path}.post_layernorm", Value(config.width, first), config.eps)
    return g.dense("visual_projection", normed, config.projection, bias=False)


def _unit(g: Layers, rows: str, *, exact: bool = False) -> str:
    """Rows of length 1, in float32. A row of zeros stays as it is. `exact` rows are in float32 already."""
    graph = g.graph
    if graph.compute != FLOAT and not exact:
        rows = graph.cast(rows, FLOAT)
    length = graph.op("ReduceL2", rows, graph.constant([1]), keepdims=1)
    return graph.op("Div", rows, graph.op("Max", length, graph.constant(_LEAST, "float32")))
