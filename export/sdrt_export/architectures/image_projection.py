"""The projections of IP-Adapter (Ye et al. 2023, arXiv:2308.06721): what CLIP sees, as tokens for the U-Net.

The base adapter projects the image's embedding. "Plus" draws its tokens from all patches by attention, with a resampler
(Alayrac et al. 2022, arXiv:2204.14198). The names are those of diffusers' classes `ImageProjection` and
`IPAdapterPlusImageProjection`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Attention, Value

__all__ = ["TOKENS", "ProjectionConfig", "image_projection"]

TOKENS = "image_tokens"
_EPS = 1e-5
_HEAD = 64


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """The shape of a projection.

    Attributes:
        embeds_width: the width of the image's embedding, or of its patches' tokens.
        tokens: how many tokens the U-Net gets for an image.
        width: their width.
        layers: the layers of the resampler; 0 for the base adapter, whose other numbers are then 0 too.
        hidden: the width inside the resampler.
        heads: the heads of its attention, each of 64.
        inner: the channels inside its feed-forward blocks.
    """

    embeds_width: int
    tokens: int
    width: int
    layers: int = 0
    hidden: int = 0
    heads: int = 0
    inner: int = 0

    @property
    def is_plus(self) -> bool:
        """Whether it reads the tokens of all patches."""
        return self.layers > 0


def image_projection(config: ProjectionConfig, g: Layers) -> None:
    """Write the graph.

    Input: `image_embeds` [batch, embeds_width], or with a resampler [batch, patches, embeds_width].
    Output: `image_tokens` [batch, tokens, width].
    """
    made = _resampled(config, g) if config.is_plus else _projected(config, g)
    g.output(TOKENS, made, ["batch", config.tokens, config.width])


def _projected(config: ProjectionConfig, g: Layers) -> Value:
    given = g.graph.input("image_embeds", ["batch", config.embeds_width])
    embeds = g.computed(Value(config.embeds_width, given))
    flat = g.dense("image_embeds", embeds, config.tokens * config.width)
    shape = g.graph.constant([0, config.tokens, config.width])
    return g.layer_norm("norm", Value(config.width, g.graph.op("Reshape", flat.name, shape)), _EPS)


def _resampled(config: ProjectionConfig, g: Layers) -> Value:
    x = g.linear("proj_in", g.tokens_input("image_embeds", config.embeds_width, "patches"), config.hidden)
    graph = g.graph
    graph.path = "latents"
    batch = graph.op("Shape", x.name, start=0, end=1)
    shape = graph.op("Concat", batch, graph.constant([config.tokens, config.hidden]), axis=0)
    table = g.weight("latents", 1, config.tokens, config.hidden)
    latents = Value(config.hidden, graph.op("Expand", table, shape))
    for index in range(config.layers):
        latents = _layer(config, g, f"layers.{index}", x, latents)
    return g.layer_norm("norm_out", g.linear("proj_out", latents, config.width), _EPS)


def _layer(config: ProjectionConfig, g: Layers, path: str, x: Value, latents: Value) -> Value:
    """The latents attend to the patches and to themselves, then a feed-forward block."""
    own = g.layer_norm(f"{path}.ln1", latents, _EPS)
    others = g.layer_norm(f"{path}.ln0", x, _EPS)
    both = Value(config.hidden, g.graph.op("Concat", others.name, own.name, axis=1))
    attention = Attention(f"{path}.attn", heads=config.heads, width=config.heads * _HEAD)
    query, key, value = (
        g.linear(name, tokens, attention.width, bias=False)
        for name, tokens in ((attention.query, own), (attention.key, both), (attention.value, both))
    )
    made = g.linear(attention.out, g.attend(query, key, value, attention), config.hidden, bias=False)
    latents = g.add(made, latents)
    h = g.layer_norm(f"{path}.ff.0", latents, _EPS)
    h = g.gelu(g.linear(f"{path}.ff.1.net.0.proj", h, config.inner, bias=False))
    return g.add(g.linear(f"{path}.ff.1.net.2", h, config.hidden, bias=False), latents)
