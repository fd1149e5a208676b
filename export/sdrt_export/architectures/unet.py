"""The U-Net of Stable Diffusion (Rombach et al. 2022, arXiv:2112.10752), as `UNet2DConditionModel` has it.

Text to image, inpainting, instructions and upscaling differ in the channels of `conv_in` and in the embeddings that are
added to the timestep's. SDXL has transformers of several layers, and pooled texts and sizes as inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from sdrt.model_folder.graph_kind import NO_MORE, MoreInputs
from sdrt_export.architectures.image_prompts import Context, image_prompt_inputs
from sdrt_export.architectures.unet_config import BlockConfig, UNetConfig
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Attention, ImagePrompt, Value

__all__ = ["down_block", "embedding", "feature_places", "middle_block", "unet"]

_TRANSFORMER_EPS = 1e-6
_LAYER_NORM_EPS = 1e-5
_FEATURE = "intrablock_additional_residual"


def unet(config: UNetConfig, g: Layers, more: MoreInputs = NO_MORE) -> None:
    """Write the graph.

    Inputs: `sample` [batch, in, height, width], `timestep` scalar, `encoder_hidden_states` [batch, sequence, width],
    and those that the config asks for: `class_labels`, `text_embeds` and `time_ids`, `timestep_cond`.
    With `more.residuals`, also those of ControlNets: `down_block_additional_residual_0` to `…_n` for what the blocks on
    the way down pass to those on the way up, and `mid_block_additional_residual`, each as large as what it is added to.
    With `more.features`, also those of T2I-Adapters: `down_intrablock_additional_residual_0` to `…_n` for the blocks on
    the way down, and `mid_intrablock_additional_residual`, of the sizes in `feature_places`.
    For each of `more.images`, also `image_tokens_n` [batch, length, width] and the scales `image_scales_n` [layers] of
    all cross-attentions, in the order of `image_prompt_layers`, and with a mask `image_mask_n_level`
    [1 or batch, pixels, 1] for each of `image_prompt_levels`.
    Output: `out_sample` [batch, out, height, width].
    """
    sample = g.image_input("sample", config.in_channels)
    if config.center_input_sample:
        sample = g.shifted(g.multiply(sample, 2.0), -1.0)
    temb = embedding(config, g)
    text = g.tokens_input("encoder_hidden_states", config.context_width)
    context = Context(text, image_prompt_inputs(config, g, more.images))
    x = g.conv("conv_in", sample, config.channels[0], kernel=config.conv_in_kernel)
    skips = [x]
    for index, block in enumerate(config.down):
        feature = _feature(g, f"down_{_FEATURE}_{index}", block) if more.features else None
        x = down_block(config, g, f"down_blocks.{index}", block, x, temb, context, skips, feature)
    if config.mid is not None:
        x = middle_block(config, g, config.mid, x, temb, context)
        x = g.add(_feature(g, f"mid_{_FEATURE}", config.mid), x) if more.features else x
    if more.residuals:
        x, skips = _with_residuals(g, x, skips)
    for index, block in enumerate(config.up):
        x = _up(config, g, f"up_blocks.{index}", block, x, temb, context, skips)
    x = g.group_norm("conv_norm_out", x, config.groups, config.eps, silu=True)
    g.image_output("out_sample", g.conv("conv_out", x, config.out_channels, kernel=config.conv_out_kernel))


def feature_places(config: UNetConfig) -> list[tuple[int, int]]:
    """Where a T2I-Adapter's features are added: the channels, and how often the latents are halved up to there.

    As in diffusers, that is before a block's downsampling if it attends to the text, otherwise after it. The last place
    is the middle, which only SDXL's adapters reach.
    """
    places, halvings = [], 0
    for block in config.down:
        after = halvings + block.resamples
        places.append((block.channels, halvings if block.attends else after))
        halvings = after
    return places if config.mid is None else [*places, (config.mid.channels, halvings)]


def _feature(g: Layers, name: str, block: BlockConfig) -> Value:
    return g.image_input(name, block.channels, (f"{name}_height", f"{name}_width"))


def _with_residuals(g: Layers, x: Value, skips: list[Value]) -> tuple[Value, list[Value]]:
    """Add a ControlNet's residuals to the middle's output and to the `skips`."""

    def added(name: str, to: Value) -> Value:
        return g.add(g.image_input(name, to.channels, (f"{name}_height", f"{name}_width")), to)

    skips = [added(f"down_block_additional_residual_{index}", one) for index, one in enumerate(skips)]
    return added("mid_block_additional_residual", x), skips


def down_block(
    config: UNetConfig,
    g: Layers,
    path: str,
    block: BlockConfig,
    x: Value,
    temb: Value,
    context: Context,
    skips: list[Value],
    feature: Value | None = None,
) -> Value:
    """A block on the way down, with a T2I-Adapter's `feature`. What the way up takes is appended to `skips`."""
    for index, depth in enumerate(block.depths):
        x = _resnet(config, g, f"{path}.resnets.{index}", x, block.channels, temb)
        if block.attends:
            x = _transformer(config, g, f"{path}.attentions.{index}", x, context, block, depth)
        skips.append(x)
    if feature is not None and block.attends:
        x = skips[-1] = g.add(feature, x)
    if block.resamples:
        padding = config.downsample_padding
        x = g.downsampled(f"{path}.downsamplers.0.conv", x, block.channels, padding=padding, restored=True)
        skips.append(x)
    if feature is not None and not block.attends:
        x = skips[-1] = g.add(feature, x)
    return x


def middle_block(
    config: UNetConfig, g: Layers, block: BlockConfig, x: Value, temb: Value, context: Context
) -> Value:
    """The block between both ways."""
    x = _resnet(config, g, "mid_block.resnets.0", x, block.channels, temb, config.mid_scale)
    for index, depth in enumerate(block.depths):
        if block.attends:
            x = _transformer(config, g, f"mid_block.attentions.{index}", x, context, block, depth)
        x = _resnet(config, g, f"mid_block.resnets.{index + 1}", x, block.channels, temb, config.mid_scale)
    return x


def _up(
    config: UNetConfig,
    g: Layers,
    path: str,
    block: BlockConfig,
    x: Value,
    temb: Value,
    context: Context,
    skips: list[Value],
) -> Value:
    for index, depth in enumerate(block.depths):
        joined = g.join(x, skips.pop())
        x = _resnet(config, g, f"{path}.resnets.{index}", joined, block.channels, temb)
        if block.attends:
            x = _transformer(config, g, f"{path}.attentions.{index}", x, context, block, depth)
    if block.resamples:
        x = g.conv(f"{path}.upsamplers.0.conv", g.enlarged(x, skips[-1]), block.channels)
    return x


def _resnet(
    config: UNetConfig, g: Layers, path: str, x: Value, out: int, temb: Value, scale: float = 1.0
) -> Value:
    """Two convolutions around the timestep's embedding, and a shortcut (He et al. 2016)."""
    h = g.group_norm(f"{path}.norm1", x, config.groups, config.eps, silu=True)
    h = g.conv(f"{path}.conv1", h, out)
    if config.scale_and_shift:
        both = g.dense(f"{path}.time_emb_proj", temb, 2 * out)
        h = g.group_norm(f"{path}.norm2", h, config.groups, config.eps)
        h = g.silu(_scaled_and_shifted(g, h, both))
    else:
        h = g.add_to_pixels(h, g.dense(f"{path}.time_emb_proj", temb, out))
        h = g.group_norm(f"{path}.norm2", h, config.groups, config.eps, silu=True)
    h = g.conv(f"{path}.conv2", h, out)
    skip = x if x.channels == out else g.conv(f"{path}.conv_shortcut", x, out, kernel=1)
    return g.multiply(g.add(h, skip), 1 / scale)


def _scaled_and_shifted(g: Layers, h: Value, both: Value) -> Value:
    """``h · (1 + scale) + shift`` for the halves of a vector `[batch, 2 · channels]`."""
    scale, shift = g.graph.ops("Split", both.name, count=2, axis=-1, num_outputs=2)
    one = g.graph.op("Add", scale, g.graph.number(1))
    return g.add_to_pixels(g.multiply_pixels(h, Value(h.channels, one)), Value(h.channels, shift))


def _transformer(
    config: UNetConfig, g: Layers, path: str, x: Value, context: Context, block: BlockConfig, depth: int
) -> Value:
    """Blocks of attention over the pixels, and to the text."""
    h = g.group_norm(f"{path}.norm", x, config.groups, _TRANSFORMER_EPS)
    if config.linear_projection:
        h = g.linear(f"{path}.proj_in", g.tokens(h), x.channels)
    else:
        h = g.tokens(g.conv(f"{path}.proj_in", h, x.channels, kernel=1))
    for index in range(depth):
        layer = f"{path}.transformer_blocks.{index}"
        prompts = context.prompts(g, config, f"{layer}.attn2")
        h = _transformer_block(g, layer, h, context.text, block, prompts)
    if config.linear_projection:
        h = g.image(g.linear(f"{path}.proj_out", h, x.channels), x)
    else:
        h = g.conv(f"{path}.proj_out", g.image(h, x), x.channels, kernel=1)
    return g.add(h, x)


def _transformer_block(
    g: Layers, path: str, h: Value, text: Value, block: BlockConfig, prompts: Sequence[ImagePrompt]
) -> Value:
    """Self-attention, cross-attention, feed-forward, each after a norm and around a residual."""
    attention = Attention(f"{path}.attn1", heads=block.heads, width=h.channels, packed="to_{}")
    other = text if block.only_cross_attention else None
    h = g.add(g.attention(attention, g.layer_norm(f"{path}.norm1", h, _LAYER_NORM_EPS), other), h)
    attention = Attention(f"{path}.attn2", heads=block.heads, width=h.channels, packed="to_{}")
    h = g.add(g.attention(attention, g.layer_norm(f"{path}.norm2", h, _LAYER_NORM_EPS), text, prompts), h)
    inner = g.geglu(
        f"{path}.ff.net.0.proj", g.layer_norm(f"{path}.norm3", h, _LAYER_NORM_EPS), 4 * h.channels
    )
    return g.add(g.linear(f"{path}.ff.net.2", inner, h.channels), h)


# --- the timestep, and what is added to its embedding -------------------------------------------------------


def embedding(config: UNetConfig, g: Layers) -> Value:
    """The embedding `[batch, width]` of the timestep and of other conditions, after its activation."""
    graph, graph.path = g.graph, "time_embedding"
    batch = graph.op("Shape", "sample", start=0, end=1)
    timestep = graph.input("timestep", [])
    each = graph.op("Expand", graph.op("Reshape", timestep, graph.constant([-1])), batch)
    t = g.computed(_sinusoid(g, each, config.channels[0], config.flip, config.shift))
    if config.guidance_width:
        condition = g.computed(
            Value(config.guidance_width, graph.input("timestep_cond", ["batch", config.guidance_width]))
        )
        t = g.add(g.dense("time_embedding.cond_proj", condition, t.channels, bias=False), t)
    temb = _two_layers(g, "time_embedding", t, config.time_width, config.time_width)
    if config.num_class_embeds:
        labels = graph.input("class_labels", ["batch"], TensorProto.INT64)
        table = g.weight("class_embedding.weight", config.num_class_embeds, config.time_width)
        temb = g.add(Value(config.time_width, graph.op("Gather", table, labels)), temb)
    if config.added_width:
        temb = g.add(_text_and_size(config, g, batch), temb)
    return g.silu(temb)


def _text_and_size(config: UNetConfig, g: Layers, batch: str) -> Value:
    """The embedding of pooled texts and of the image's sizes (SDXL, Podell et al. 2023, arXiv:2307.01952)."""
    graph, graph.path = g.graph, "add_embedding"
    # The config does not say how many numbers there are. The network needs only their total width.
    texts = g.computed(Value(config.pooled_width, graph.input("text_embeds", ["batch", "pooled"])))
    ids = graph.input("time_ids", ["batch", "sizes"])
    flat = graph.op("Reshape", ids, graph.constant([-1]))
    sizes = _sinusoid(g, flat, config.size_width, config.flip, config.shift)
    shape = graph.op("Concat", batch, graph.constant([-1]), axis=0)
    sizes = g.computed(Value(config.added_width, graph.op("Reshape", sizes.name, shape)))
    both = Value(config.added_width, graph.op("Concat", texts.name, sizes.name, axis=-1))
    return _two_layers(g, "add_embedding", both, config.time_width, config.time_width)


def _two_layers(g: Layers, path: str, x: Value, inner: int, out: int) -> Value:
    return g.dense(f"{path}.linear_2", g.silu(g.dense(f"{path}.linear_1", x, inner)), out)


def _sinusoid(g: Layers, t: str, width: int, flip: bool, shift: float) -> Value:
    """Sines and cosines `[n, width]` of `t` [n], in float32 (Vaswani et al. 2017)."""
    graph, half = g.graph, width // 2
    steps = np.arange(half, dtype=np.float32)
    frequencies = np.exp(np.float32(-math.log(10000)) * steps / np.float32(half - shift))
    column = graph.op("Unsqueeze", t, graph.constant([1]))
    angles = graph.op("Mul", column, graph.constant(frequencies[np.newaxis], np.float32))
    waves = [graph.op("Sin", angles), graph.op("Cos", angles)]
    return Value(width, graph.op("Concat", *(reversed(waves) if flip else waves), axis=-1))
