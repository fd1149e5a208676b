"""How layers are written in standard operators. Targets override the layers for which they have better ones.

A builder (:mod:`sdrt_export.architectures`) says what a network computes, layer by layer, with the checkpoint's names.
It knows no operators. `Layers` writes them. Sums are lazy: `add` writes nothing until the sum is used, so that a target
can fuse it with the norm that follows.

Images are `[batch, channels, height, width]` or, for some targets, `[batch, height, width, channels]`. Tokens are
`[batch, sequence, channels]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdrt.adapters.arrangement import Transposed
from sdrt_export.graphs.activations import Activations
from sdrt_export.graphs.graph import FLOAT
from sdrt_export.graphs.values import Affine, Attention, ImagePrompt, Sum, Value
from sdrt_export.graphs.weights import Weight

__all__ = ["Layers"]


class Layers(Activations):
    """Writes layers in standard operators, with images in NCHW."""

    # --- inputs and outputs ---------------------------------------------------------------------------------

    def image_input(
        self, name: str, channels: int, sizes: tuple[int | str, int | str] = ("height", "width")
    ) -> Value:
        """An image `[batch, channels, height, width]` in float32."""
        return self._image(
            Value(channels, self._computed(self.graph.input(name, ["batch", channels, *sizes])))
        )

    def unshuffled_input(
        self, name: str, channels: int, factor: int, sizes: tuple[int | str, int | str]
    ) -> Value:
        """An image in float32 whose squares of `factor` by `factor` pixels are one pixel of more channels.

        The channels are in the order of torch's PixelUnshuffle. SpaceToDepth has the colours innermost.
        """
        graph, count = self.graph, channels * factor**2
        given = self._computed(graph.input(name, ["batch", channels, *sizes]))
        order = np.arange(count).reshape(factor**2, channels).T.ravel()
        apart = graph.op("SpaceToDepth", given, blocksize=factor)
        return self._image(Value(count, graph.op("Gather", apart, graph.constant(order), axis=1)))

    def tokens_input(self, name: str, channels: int, length: str = "sequence") -> Value:
        """Tokens `[batch, length, channels]` in float32."""
        return Value(channels, self._computed(self.graph.input(name, ["batch", length, channels])))

    def image_output(self, name: str, x: Value, sizes: tuple[str, str] = ("height", "width")) -> None:
        """Return an image `[batch, channels, height, width]` in float32."""
        self.graph.output(name, self._planes(x).name, ["batch", x.channels, *sizes])

    def output(self, name: str, x: Value, dims: Sequence[int | str]) -> None:
        """Return tokens or vectors in float32."""
        self.graph.output(name, x.name, list(dims))

    def _computed(self, name: str) -> str:
        return name if self.graph.compute == FLOAT else self.graph.cast(name, self.graph.compute)

    def computed(self, x: Value) -> Value:
        """A float32 value in the type of the activations."""
        return x.like(self._computed(x.name))

    def _image(self, planes: Value) -> Value:
        """An image in this target's layout, from NCHW."""
        return planes

    def _planes(self, image: Value) -> Value:
        """An image in NCHW."""
        return image

    # --- weights --------------------------------------------------------------------------------------------

    def weight(self, name: str, *shape: int, exact: bool = False) -> str:
        """A tensor of the checkpoint, unchanged."""
        return self.graph.weight(Weight(name=name, sources={name: shape}, shape=shape, exact=exact))

    def matrix(self, name: str, rows: int, columns: int) -> str:
        """A linear layer's `[out, in]`, stored transposed as MatMul takes it."""
        return self.graph.weight(
            Weight(
                name=name,
                sources={name: (rows, columns)},
                shape=(columns, rows),
                arrange=Transposed(),
            )
        )

    # --- layers ---------------------------------------------------------------------------------------------

    def linear(self, path: str, x: Value, out: int, *, bias: bool = True) -> Value:
        """A linear layer over the last dimension."""
        graph, graph.path = self.graph, path

        def product() -> str:
            graph.path = path
            return self._product(x.name, path, x.channels, out)

        if not bias:
            return Value(out, make=product)
        name = self.weight(f"{path}.bias", out)
        return Affine(out, product=product, bias=name, whole=lambda: graph.op("Add", product(), name))

    def dense(self, path: str, x: Value, out: int, *, bias: bool = True) -> Value:
        """A linear layer on a vector `[batch, channels]`."""
        self.graph.path = path
        inputs = [x.name, self.weight(f"{path}.weight", out, x.channels)]
        inputs += [self.weight(f"{path}.bias", out)] if bias else []
        return Value(out, self.graph.op("Gemm", *inputs, transB=1))

    def _product(self, x: str, path: str, channels: int, out: int) -> str:
        return self.graph.op("MatMul", x, self.matrix(f"{path}.weight", out, channels))

    def geglu(self, path: str, x: Value, out: int) -> Value:
        """``a · gelu(b)`` for the halves `a` and `b` of a linear layer of twice the width."""
        a, b = self.graph.ops("Split", self.linear(path, x, 2 * out).name, count=2, axis=-1, num_outputs=2)
        return Value(out, self.graph.op("Mul", a, self.graph.op("Gelu", b)))

    def conv(
        self,
        path: str,
        x: Value,
        out: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        pads: tuple[int, int] | None = None,
        bias: bool = True,
    ) -> Value:
        """A convolution. `pads` are those before and after each side, by default what keeps the size."""
        before, after = pads or (kernel // 2, kernel // 2)
        self.graph.path = path
        inputs = [x.name, self.weight(f"{path}.weight", out, x.channels, kernel, kernel)]
        inputs += [self.weight(f"{path}.bias", out)] if bias else []
        sides: dict[str, Any] = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [before] * 2 + [after] * 2,
        }
        return Value(out, self.graph.op("Conv", *inputs, **sides))

    def group_norm(self, path: str, x: Value, groups: int, eps: float, *, silu: bool = False) -> Value:
        """A group norm, then SiLU if asked for.

        InstanceNormalization over `[batch, groups, everything else]`, then scale and shift: GroupNormalization-21 takes
        1.7 times as long on ONNX Runtime's CPU provider and loses digits where the mean is far above the spread.
        """
        graph, graph.path = self.graph, path
        ones, zeros = graph.number(np.ones(groups)), graph.number(np.zeros(groups))
        grouped = graph.op("Reshape", x.name, graph.constant([0, groups, -1]))
        normed = graph.op("InstanceNormalization", grouped, ones, zeros, epsilon=eps)
        normed = graph.op("Reshape", normed, graph.op("Shape", x.name))
        column = graph.constant([-1, 1, 1])
        scale, shift = (
            graph.op("Reshape", self.weight(f"{path}.{name}", x.channels), column)
            for name in ("weight", "bias")
        )
        y = Value(x.channels, graph.op("Add", graph.op("Mul", normed, scale), shift))
        return self.silu(y) if silu else y

    def layer_norm(self, path: str, x: Value, eps: float) -> Value:
        """A norm over the last dimension."""
        self.graph.path = path
        scale, shift = self.weight(f"{path}.weight", x.channels), self.weight(f"{path}.bias", x.channels)
        return Value(
            x.channels, self.graph.op("LayerNormalization", x.name, scale, shift, epsilon=eps, axis=-1)
        )

    def attention(
        self,
        attention: Attention,
        x: Value,
        context: Value | None = None,
        prompts: Sequence[ImagePrompt] = (),
    ) -> Value:
        """Attention of tokens `x` to themselves or to `context`, with its output projection.

        Before that, what the same queries find in each of `prompts` is added (IP-Adapter's decoupled attention).
        """
        query, made = self._attended(attention, x, context)
        for one in prompts:
            key, value = (
                self.linear(path, one.tokens, attention.width, bias=False)
                for path in attention.image_prompt(one.number)
            )
            found = self.attend(query, key, value, attention)
            seen = self.graph.op("Mul", found.name, one.mask) if one.mask else found.name
            scaled = self.graph.op("Mul", seen, one.scale)
            made = Value(attention.width, self.graph.op("Add", made.name, scaled))
        return self.linear(attention.out, made, x.channels)

    def _attended(self, attention: Attention, x: Value, context: Value | None) -> tuple[Value, Value]:
        """The queries, and what they find in `x` itself or in `context`."""
        other = context or x
        query, key, value = (
            self.linear(path, tokens, attention.width, bias=attention.bias)
            for path, tokens in ((attention.query, x), (attention.key, other), (attention.value, other))
        )
        return query, self.attend(query, key, value, attention)

    def attend(self, query: Value, key: Value, value: Value, attention: Attention) -> Value:
        """Softmax of the scores, times the values. TensorRT, OpenVINO and DirectML fuse this pattern themselves."""
        graph, heads, size = self.graph, attention.heads, attention.width // attention.heads
        graph.path = attention.path
        apart = graph.constant([0, 0, heads, size])
        q, k, v = (graph.op("Reshape", one.name, apart) for one in (query, key, value))
        q, v = (graph.op("Transpose", one, perm=[0, 2, 1, 3]) for one in (q, v))
        k = graph.op("Transpose", k, perm=[0, 2, 3, 1])
        scores = self._scores(q, k, attention)
        if attention.causal:
            scores = graph.op("Add", scores, self._causal_mask(query))
        out = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
        out = graph.op("Transpose", out, perm=[0, 2, 1, 3])
        return Value(attention.width, graph.op("Reshape", out, graph.constant([0, 0, attention.width])))

    def _scores(self, query: str, key: str, attention: Attention) -> str:
        """`[batch, heads, queries, keys]` of queries `[batch, heads, queries, size]` and keys turned around."""
        graph = self.graph
        return graph.op("MatMul", graph.op("Mul", query, graph.number(attention.scale)), key)

    def _causal_mask(self, tokens: Value) -> str:
        """`[sequence, sequence]`: 0 where a token may look, else -∞."""
        graph = self.graph
        length = graph.op("Shape", tokens.name, start=1, end=2)
        positions = graph.op("Range", graph.constant(0), graph.op("Squeeze", length), graph.constant(1))
        column = graph.op("Unsqueeze", positions, graph.constant([1]))
        return graph.op(
            "Where", graph.op("Greater", positions, column), graph.number(-np.inf), graph.number(0)
        )

    # --- sums and shapes ------------------------------------------------------------------------------------

    def add(self, x: Value, skip: Value) -> Value:
        """``x + skip``. A norm that follows may compute it."""
        return Sum(x, skip, self.total)

    def total(self, addends: Sum) -> str:
        """Write a sum."""
        return self.graph.op("Add", addends.skip.name, addends.x.name)

    def add_to_pixels(self, x: Value, vector: Value) -> Value:
        """Add a vector `[batch, channels]` to every pixel of an image."""
        return x.like(self.graph.op("Add", x.name, self._pixel(vector)))

    def multiply_pixels(self, x: Value, vector: Value) -> Value:
        """Multiply every pixel of an image with a vector `[batch, channels]`."""
        return x.like(self.graph.op("Mul", x.name, self._pixel(vector)))

    def _pixel(self, vector: Value) -> str:
        """A vector `[batch, channels]` as an image of one pixel."""
        axes = [axis for axis in (1, 2, 3) if axis != self.channel_axis]
        return self.graph.op("Unsqueeze", vector.name, self.graph.constant(axes))

    def multiply(self, x: Value, factor: float) -> Value:
        """``x · factor``."""
        return x if factor == 1 else x.like(self.graph.op("Mul", x.name, self.graph.number(factor)))

    def shifted(self, x: Value, by: float) -> Value:
        """``x + by``."""
        return x.like(self.graph.op("Add", x.name, self.graph.number(by)))

    def join(self, *images: Value) -> Value:
        """Put images' channels after one another."""
        channels = sum(one.channels for one in images)
        return Value(channels, self.graph.op("Concat", *(one.name for one in images), axis=self.channel_axis))

    def reversed_channels(self, image: Value) -> Value:
        """The image with its channels in the other order."""
        order = self.graph.constant(range(image.channels - 1, -1, -1))
        return image.like(self.graph.op("Gather", image.name, order, axis=self.channel_axis))

    def pooled(self, image: Value) -> Value:
        """The image with the mean of all pixels in every pixel."""
        graph = self.graph
        axes = graph.constant([axis for axis in (1, 2, 3) if axis != self.channel_axis])
        mean = graph.op("ReduceMean", image.name, axes, keepdims=1)
        return image.like(graph.op("Expand", mean, graph.op("Shape", image.name)))

    channel_axis = 1
    """Where an image's channels are."""

    def tokens(self, image: Value) -> Value:
        """The pixels of an image as tokens."""
        flat = self.graph.op("Reshape", image.name, self.graph.constant([0, image.channels, -1]))
        return Value(image.channels, self.graph.op("Transpose", flat, perm=[0, 2, 1]))

    def image(self, tokens: Value, like: Value) -> Value:
        """Tokens as the pixels of an image that is as large as `like` and has as many channels."""
        planes = self.graph.op("Transpose", tokens.name, perm=[0, 2, 1])
        return Value(tokens.channels, self.graph.op("Reshape", planes, self.graph.op("Shape", like.name)))

    def enlarged(self, image: Value, like: Value | None = None) -> Value:
        """Nearest neighbour to twice the size, or to the size of `like`, which may be odd."""
        graph = self.graph
        options: dict[str, Any] = {
            "mode": "nearest",
            "nearest_mode": "floor",
            "coordinate_transformation_mode": "asymmetric",
        }
        if like is None:
            scales = graph.constant([1, 1, 2, 2], np.float32)
            return Value(image.channels, graph.op("Resize", image.name, None, scales, **options))
        sizes = (graph.op("Shape", image.name, start=0, end=2), graph.op("Shape", like.name, start=2))
        size = graph.op("Concat", *sizes, axis=0)
        return Value(image.channels, graph.op("Resize", image.name, None, None, size, **options))

    def downsampled(
        self, path: str, x: Value, out: int, *, padding: int = 1, restored: bool = False
    ) -> Value:
        """A convolution to half of the size. With a `padding` of 0, zeros go only below and to the right.

        `restored` says that the result will be `enlarged` to the size of `x` again, which may be odd.
        """
        return self.conv(path, x, out, stride=2, pads=(1, 1) if padding else (0, 1))

    def halved(self, image: Value) -> Value:
        """The mean of each square of 2x2 pixels. At an odd side's end, that of the pixels that there are."""
        planes = self._planes(image).name
        made = self.graph.op("AveragePool", planes, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        return self._image(Value(image.channels, made))

    # --- images in NCHW, with every target's layout -----------------------------------------------------------

    def planes_conv(self, path: str, x: Value, out: int, *, kernel: int = 3) -> Value:
        """A convolution of an image in NCHW."""
        return self._planes(self.conv(path, self._image(x), out, kernel=kernel))

    def planes_downsampled(self, path: str, x: Value, out: int) -> Value:
        """`downsampled` of an image in NCHW, with zeros below and to the right."""
        return self._planes(self.downsampled(path, self._image(x), out, padding=0))

    def planes_enlarged(self, x: Value) -> Value:
        """`enlarged` of an image in NCHW."""
        return self._planes(self.enlarged(self._image(x)))

    def planes_tokens(self, x: Value) -> Value:
        """The pixels of an image in NCHW as tokens."""
        return self.tokens(self._image(x))
