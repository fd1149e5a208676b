"""ControlNet (Zhang, Rao, Agrawala 2023, arXiv:2302.05543), as `ControlNetModel` has it.

It is the first half of a U-Net, which also sees a control image. What each layer gives goes through a 1x1 convolution
("zero convolution", because training begins with zeros), and is added to the same place of the U-Net.
"""

from __future__ import annotations

from sdrt_export.architectures.controlnet_config import ControlNetConfig
from sdrt_export.architectures.image_prompts import Context
from sdrt_export.architectures.unet import down_block, embedding, middle_block
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Value

__all__ = ["controlnet"]

_EMBEDDING = "controlnet_cond_embedding"


def controlnet(config: ControlNetConfig, g: Layers) -> None:
    """Write the graph.

    Inputs: those of a U-Net with the same config, `controlnet_cond` [batch, channels, height, width] with the control
    image from 0 to 1, and `conditioning_scale` [residuals] with a factor for each output.
    Outputs: `down_block_res_sample_0` to `…_n` and `mid_block_res_sample`, the residuals for the U-Net, in diffusers'
    order. All are as large as the U-Net's own values, also those of a ControlNet that pools.
    """
    shape = config.unet
    assert shape.mid is not None  # the config was checked
    sample = g.image_input("sample", shape.in_channels)
    temb = embedding(shape, g)
    context = Context(g.tokens_input("encoder_hidden_states", shape.context_width))
    x = g.conv("conv_in", sample, shape.channels[0])
    x = g.add(x, _condition(config, g))
    made = [x]
    for index, block in enumerate(shape.down):
        x = down_block(shape, g, f"down_blocks.{index}", block, x, temb, context, made)
    x = middle_block(shape, g, shape.mid, x, temb, context)
    scales = _scales(g, len(made) + 1)
    for index, one in enumerate(made):
        name = f"down_block_res_sample_{index}"
        _residual(config, g, f"controlnet_down_blocks.{index}", one, scales[index], name)
    _residual(config, g, "controlnet_mid_block", x, scales[-1], "mid_block_res_sample")


def _condition(config: ControlNetConfig, g: Layers) -> Value:
    """The control image, shrunk to the size of the latents."""
    sizes = ("condition_height", "condition_width")
    x = g.image_input("controlnet_cond", config.conditioning_channels, sizes)
    if config.reverses_channels:
        x = g.reversed_channels(x)
    first, *others = config.embedding
    x = g.silu(g.conv(f"{_EMBEDDING}.conv_in", x, first))
    for index, channels in enumerate(others):
        x = g.silu(g.conv(f"{_EMBEDDING}.blocks.{2 * index}", x, x.channels))
        x = g.silu(g.downsampled(f"{_EMBEDDING}.blocks.{2 * index + 1}", x, channels))
    return g.conv(f"{_EMBEDDING}.conv_out", x, config.unet.channels[0])


def _scales(g: Layers, count: int) -> tuple[str, ...]:
    """The factor [1] of each output."""
    graph, graph.path = g.graph, "conditioning_scale"
    scale = g.computed(Value(count, graph.input("conditioning_scale", [count])))
    return graph.ops("Split", scale.name, count=count, axis=0, num_outputs=count)


def _residual(config: ControlNetConfig, g: Layers, path: str, x: Value, scale: str, name: str) -> None:
    y = g.conv(path, x, x.channels, kernel=1)
    y = y.like(g.graph.op("Mul", y.name, scale))
    g.image_output(name, g.pooled(y) if config.pools else y, (f"{name}_height", f"{name}_width"))
