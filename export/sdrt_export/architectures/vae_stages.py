"""Cuts the VAE at every group norm, so that the runtime can process images of any size in tiles, exactly.

A group norm needs the mean and variance of the whole image. Estimates from tiles would be visible. So the graph has a
part for each stretch between two norms, which takes mean and variance as inputs. The runtime runs all tiles of a part
before the next part, and measures its output (:mod:`sdrt.vae.stages`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sdrt.vae.stages import METADATA, Stage, describe
from sdrt_export.architectures.vae import EPS, VaeConfig, attention_of
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Attention, Value

__all__ = ["STAGED", "Part", "decoder_parts", "encoder_parts", "write_stages"]

Values = Mapping[str, Value]
Body = Callable[[Layers, Values], Value]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stage: `norm` normalises `sample`, if there is a norm, then `body` takes all inputs.

    `channels` are those of the input, `skip_channels` those of the residual.
    """

    stage: Stage
    body: Body
    channels: int
    norm: str = ""
    skip_channels: int = 0


def write_stages(parts: list[Part], g: Layers) -> None:
    """Write a graph that has all parts side by side, independent of one another."""
    for index, part in enumerate(parts):
        values = _inputs(part, g, index)
        if part.norm:
            values["normed"] = _normed(part, g, values)
        computed = {
            name: g.computed(value) for name, value in values.items() if name not in ("mean", "variance")
        }
        made = part.body(g, computed)
        g.graph.output(part.stage.output, made.name, [1, made.channels, *_free(f"out_{index}")])
    g.graph.describe(METADATA, describe([part.stage for part in parts]))


def _free(suffix: str) -> tuple[str, str]:
    return f"height_{suffix}", f"width_{suffix}"


def _inputs(part: Part, g: Layers, index: int) -> dict[str, Value]:
    """The inputs in float32. Free dimensions have other names than those of other parts."""
    stage, values = part.stage, {}
    channels = {"sample": part.channels, "skip": part.skip_channels, "whole": part.channels}
    for name in stage.takes:
        if name in channels:
            dims: list[int | str] = [
                1,
                channels[name],
                *_free(f"whole_{index}" if name == "whole" else f"{index}"),
            ]
            values[name] = Value(channels[name], g.graph.input(stage.input(name), dims))
        else:
            values[name] = Value(stage.groups, g.graph.input(stage.input(name), [stage.groups]))
    return values


def _normed(part: Part, g: Layers, values: Values) -> Value:
    """The group norm of `sample` by the given mean and variance of each group, in float32."""
    graph, graph.path = g.graph, part.norm
    channels, groups = part.channels, part.stage.groups
    inverse = graph.op("Add", values["variance"].name, graph.constant(EPS, np.float32))
    inverse = graph.op("Reciprocal", graph.op("Sqrt", inverse))
    each = graph.constant([groups, channels // groups])
    spread, middle = (
        graph.op(
            "Reshape",
            graph.op("Expand", graph.op("Reshape", one, graph.constant([-1, 1])), each),
            graph.constant([-1]),
        )
        for one in (inverse, values["mean"].name)
    )
    weight, bias = (g.weight(f"{part.norm}.{name}", channels, exact=True) for name in ("weight", "bias"))
    scale = graph.op("Mul", weight, spread)
    shift = graph.op("Sub", bias, graph.op("Mul", middle, scale))
    column = graph.constant([-1, 1, 1])
    scaled = graph.op("Mul", values["sample"].name, graph.op("Reshape", scale, column))
    return Value(channels, graph.op("Add", scaled, graph.op("Reshape", shift, column)))


def encoder_parts(config: VaeConfig) -> list[Part]:
    """The parts of the encoder, in order."""
    return list(_encoder(config))


def decoder_parts(config: VaeConfig) -> list[Part]:
    """The parts of the decoder, in order."""
    return list(_decoder(config))


STAGED: Mapping[str, Callable[[VaeConfig], list[Part]]] = {
    "vae_encoder": encoder_parts,
    "vae_decoder": decoder_parts,
}


def _encoder(config: VaeConfig) -> Iterator[Part]:
    before, last = config.channels[0], len(config.channels) - 1
    yield _first("encoder", config.in_channels, before)
    for index, channels in enumerate(config.channels):
        path = f"down_blocks.{index}"
        for layer in range(config.layers):
            yield from _resnet(config, "encoder", f"{path}.resnets.{layer}", before, channels)
            before = channels
        if index < last:
            yield _downsample(f"{path}.downsample", f"encoder.{path}.downsamplers.0.conv", channels)
    yield from _middle(config, "encoder")
    yield _last(config, "encoder", before, 2 * config.latent_channels)


def _decoder(config: VaeConfig) -> Iterator[Part]:
    before, last = config.channels[-1], len(config.channels) - 1
    yield _first("decoder", config.latent_channels, before, quantised=config.quantised[1])
    yield from _middle(config, "decoder")
    for index, channels in enumerate(reversed(config.channels)):
        path = f"up_blocks.{index}"
        for layer in range(config.layers + 1):
            yield from _resnet(config, "decoder", f"{path}.resnets.{layer}", before, channels)
            before = channels
        if index < last:
            yield _upsample(f"{path}.upsample", f"decoder.{path}.upsamplers.0.conv", channels)
    yield _last(config, "decoder", before, config.out_channels)


def _first(half: str, channels: int, out: int, *, quantised: bool = False) -> Part:
    def body(g: Layers, values: Values) -> Value:
        x = values["sample"]
        if quantised:
            x = g.planes_conv("post_quant_conv", x, x.channels, kernel=1)
        return g.planes_conv(f"{half}.conv_in", x, out)

    return Part(stage=Stage(name="conv_in", channels=out, halo=1), body=body, channels=channels)


def _downsample(name: str, path: str, channels: int) -> Part:
    # The convolution needs a halo of one pixel. It is two, because tiles begin at even places.
    return Part(
        stage=Stage(name=name, channels=channels, down=2, halo=2),
        body=lambda g, values: g.planes_downsampled(path, values["sample"], channels),
        channels=channels,
    )


def _upsample(name: str, path: str, channels: int) -> Part:
    return Part(
        stage=Stage(name=name, channels=channels, up=2, halo=1),
        body=lambda g, values: g.planes_conv(path, g.planes_enlarged(values["sample"]), channels),
        channels=channels,
    )


def _last(config: VaeConfig, half: str, channels: int, out: int) -> Part:
    def body(g: Layers, values: Values) -> Value:
        made = g.planes_conv(f"{half}.conv_out", g.silu(values["normed"]), out)
        is_quantised = half == "encoder" and config.quantised[0]
        return g.planes_conv("quant_conv", made, out, kernel=1) if is_quantised else made

    stage = Stage(name="conv_out", channels=out, halo=1, groups=config.groups)
    return Part(stage=stage, body=body, channels=channels, norm=f"{half}.conv_norm_out")


def _resnet(config: VaeConfig, half: str, name: str, channels: int, out: int) -> Iterator[Part]:
    path = f"{half}.{name}"

    def first(g: Layers, values: Values) -> Value:
        return g.planes_conv(f"{path}.conv1", g.silu(values["normed"]), out)

    def second(g: Layers, values: Values) -> Value:
        made, skip = g.planes_conv(f"{path}.conv2", g.silu(values["normed"]), out), values["skip"]
        return g.add(
            made, skip if channels == out else g.planes_conv(f"{path}.conv_shortcut", skip, out, kernel=1)
        )

    stage = Stage(name=f"{name}.conv1", channels=out, halo=1, groups=config.groups)
    yield Part(stage=stage, body=first, channels=channels, norm=f"{path}.norm1")
    stage = Stage(name=f"{name}.conv2", channels=out, halo=1, groups=config.groups, residual=True)
    yield Part(stage=stage, body=second, channels=out, norm=f"{path}.norm2", skip_channels=channels)


def _middle(config: VaeConfig, half: str) -> Iterator[Part]:
    channels = config.channels[-1]
    yield from _resnet(config, half, "mid_block.resnets.0", channels, channels)
    if config.attends:
        yield from _attention(config, half)
    yield from _resnet(config, half, "mid_block.resnets.1", channels, channels)


def _attention(config: VaeConfig, half: str) -> Iterator[Part]:
    """Two parts: queries, keys and values of the whole image, then each tile's queries with all keys and values."""
    attention, name = attention_of(config, half), "mid_block.attentions.0"
    width = attention.width

    def project(g: Layers, values: Values) -> Value:
        tokens = g.planes_tokens(values["normed"])
        paths = (attention.query, attention.key, attention.value)
        made = [g.linear(path, tokens, width).name for path in paths]
        joined = g.graph.op("Transpose", g.graph.op("Concat", *made, axis=2), perm=[0, 2, 1])
        size = g.graph.op("Shape", values["sample"].name, start=2)
        shape = g.graph.op("Concat", g.graph.constant([1, 3 * width]), size, axis=0)
        return Value(3 * width, g.graph.op("Reshape", joined, shape))

    def attend(g: Layers, values: Values) -> Value:
        return _attended(g, attention, values)

    stage = Stage(name=f"{name}.qkv", channels=3 * width, halo=0, groups=config.groups)
    yield Part(stage=stage, body=project, channels=width, norm=f"{attention.path}.group_norm")
    stage = Stage(name=name, channels=width, halo=0, residual=True, whole=True)
    yield Part(stage=stage, body=attend, channels=3 * width, skip_channels=width)


def _attended(g: Layers, attention: Attention, values: Values) -> Value:
    tile, whole = (g.planes_tokens(values[name]) for name in ("sample", "whole"))
    width = attention.width

    def part(tokens: Value, index: int) -> Value:
        ends = (g.graph.constant([index * width]), g.graph.constant([(index + 1) * width]))
        return Value(width, g.graph.op("Slice", tokens.name, *ends, g.graph.constant([2])))

    out = g.attend(part(tile, 0), part(whole, 1), part(whole, 2), attention)
    out = g.linear(attention.out, out, width)
    planes = g.graph.op("Transpose", out.name, perm=[0, 2, 1])
    made = g.graph.op("Reshape", planes, g.graph.op("Shape", values["skip"].name))
    return g.add(Value(width, made), values["skip"])
