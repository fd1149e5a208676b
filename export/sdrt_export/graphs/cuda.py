"""How layers are written for ONNX Runtime's CUDA provider: images in NHWC, in as few passes as its kernels allow.

Residuals, timestep embeddings and convolutions' biases are added in the next group norm (SkipGroupNorm), or in one pass
if there is none (BiasAdd). Projections of the same input are one product, interleaved by head.
"""

from __future__ import annotations

from typing import Any

from sdrt.adapters.arrangement import ByHead, ChannelsLast
from sdrt.errors import UnsupportedModelError
from sdrt_export import kernels
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import MICROSOFT
from sdrt_export.graphs.values import Affine, Attention, Sum, Value
from sdrt_export.graphs.weights import Weight

__all__ = ["CudaLayers"]

_NHWC, _NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


class PixelSum(Sum):
    """The sum of an image and a vector for all of its pixels, not added yet."""


class CudaLayers(FusedLayers):
    """Layers in NHWC."""

    channel_axis = 3

    def _image(self, planes: Value) -> Value:
        return _as_image(Value(planes.channels, self.graph.op("Transpose", planes.name, perm=_NHWC)))

    def _planes(self, image: Value) -> Value:
        return Value(image.channels, self.graph.op("Transpose", image.name, perm=_NCHW))

    # --- convolutions ---------------------------------------------------------------------------------------

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
        """A convolution, whose bias may be added later."""
        before, after = pads or (kernel // 2, kernel // 2)
        weight = self._filter(path, out, kernel, x.channels)
        return self._convolution(
            path, x, out, weight, kernel=kernel, stride=stride, pads=(before, after), bias=bias
        )

    def downsampled(
        self, path: str, x: Value, out: int, *, padding: int = 1, restored: bool = False
    ) -> Value:
        """With a `padding` of 0 the weights get zeros above and on the left, and the image is padded on all sides.

        This gives the same result at every size. It takes 16/9 of the products, but cuDNN has no kernels for different
        padding at two ends.
        """
        if restored and not padding:
            _require("downsampling without padding, which loses odd sizes", path)
        zeros = 0 if padding else 1
        weight = self._filter(path, out, 3, x.channels, zeros=zeros)
        return self._convolution(path, x, out, weight, kernel=3 + zeros, stride=2, pads=(1, 1))

    def _filter(self, path: str, out: int, kernel: int, channels: int, zeros: int = 0) -> str:
        """A convolution's weights as `[out, rows, columns, in]`, with `zeros` rows above and columns on the left."""
        name, side = f"{path}.weight", kernel + zeros
        sources = {name: (out, channels, kernel, kernel)}
        return self.graph.weight(
            Weight(name=name, sources=sources, shape=(out, side, side, channels), arrange=ChannelsLast(zeros))
        )

    def _convolution(
        self,
        path: str,
        x: Value,
        out: int,
        weight: str,
        *,
        kernel: int,
        stride: int,
        pads: tuple[int, int],
        bias: bool = True,
    ) -> Value:
        graph, image = self.graph, x.name
        _require(kernels.nhwc_conv([pads[0]] * 2 + [pads[1]] * 2, 1, (1, 1)), path)
        sides: dict[str, Any] = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [pads[0]] * 2 + [pads[1]] * 2,
        }

        def convolve(*more: str) -> str:
            graph.path = path
            options = {"group": 1, "dilations": [1, 1]}
            return graph.op("NhwcConv", image, weight, *more, domain=MICROSOFT, **sides, **options)

        if not bias:
            return _as_image(Value(out, convolve()))
        name = self.weight(f"{path}.bias", out)
        return _as_image(Affine(out, product=convolve, bias=name, whole=lambda: convolve(name)))

    # --- norms ----------------------------------------------------------------------------------------------

    def group_norm(self, path: str, x: Value, groups: int, eps: float, *, silu: bool = False) -> Value:
        """Use one operator, which also computes a sum that nothing has used yet. Its own weights stay in float32."""
        _require(kernels.group_norm(x.channels, groups), path)
        norm = [self.weight(f"{path}.{name}", x.channels, exact=True) for name in ("weight", "bias")]
        options = {"groups": groups, "epsilon": eps, "activation": int(silu), "channels_last": 1}
        graph = self.graph
        if not (isinstance(x, Sum) and x.is_open):
            made = (x.name, *norm)
            graph.path = path
            return _as_image(Value(x.channels, graph.op("GroupNorm", *made, domain=MICROSOFT, **options)))
        product, bias = (x.x.product(), [x.x.bias]) if isinstance(x.x, Affine) else (x.x.name, [])
        inputs = (product, *norm, x.skip.name, *bias)
        graph.path = path
        normed, total = graph.ops("SkipGroupNorm", *inputs, domain=MICROSOFT, count=2, **options)
        x.close(total)
        return _as_image(Value(x.channels, normed))

    # --- attention ------------------------------------------------------------------------------------------

    def _attended(self, attention: Attention, x: Value, context: Value | None) -> tuple[Value, Value]:
        """With packed projections, if there are several of the same input. Self-attention then has no queries apart."""
        if not attention.packed:
            return super()._attended(attention, x, context)
        if context is None:
            packed = self._packed(attention, "qkv", x, (attention.query, attention.key, attention.value))
            return Value(attention.width, packed), Value(attention.width, self._heads(attention, packed))
        query = self.linear(attention.query, x, attention.width, bias=attention.bias)
        name, packed = query.name, self._packed(attention, "kv", context, (attention.key, attention.value))
        return query, Value(attention.width, self._heads(attention, name, packed))

    def _packed(self, attention: Attention, name: str, x: Value, parts: tuple[str, ...]) -> str:
        """The `parts` of each head side by side: `[batch, sequence, heads, parts, head_dim]`."""
        graph, heads, count = self.graph, attention.heads, len(parts)
        path = f"{attention.path}.{attention.packed.format(name)}"
        graph.path, rows = path, count * attention.width
        weight = graph.weight(
            Weight(
                name=f"{path}.weight",
                sources={f"{part}.weight": (attention.width, x.channels) for part in parts},
                shape=(x.channels, rows),
                arrange=ByHead(heads),
            )
        )
        made = graph.op("MatMul", x.name, weight)
        if attention.bias:
            bias = Weight(
                name=f"{path}.bias",
                sources={f"{part}.bias": (attention.width,) for part in parts},
                shape=(rows,),
                arrange=ByHead(heads),
            )
            made = graph.op("Add", made, graph.weight(bias))
        shape = [0, 0, heads, count, attention.width // heads]
        return graph.op("Reshape", made, graph.constant(shape))

    def geglu(self, path: str, x: Value, out: int) -> Value:
        """Use one operator for the bias, the GELU and the product, at the widths for which it has kernels."""
        if kernels.bias_split_gelu(out):
            return super().geglu(path, x, out)
        both = self.linear(path, x, 2 * out)
        assert isinstance(both, Affine)
        return Value(out, self.graph.op("BiasSplitGelu", both.product(), both.bias, domain=MICROSOFT))

    # --- sums and shapes ------------------------------------------------------------------------------------

    def add(self, x: Value, skip: Value) -> Value:
        """``x + skip``, lazily."""
        made = super().add(x, skip)
        made.is_image = skip.is_image
        return made

    def total(self, addends: Sum) -> str:
        """Write a sum: a bias, if there is one, is added in the same pass."""
        x, skip, graph = addends.x, addends.skip, self.graph
        if isinstance(addends, PixelSum):
            return graph.op("Add", x.name, self._pixel(skip))
        if not isinstance(x, Affine):
            return super().total(addends)
        product, image = x.product(), skip.name
        if not addends.is_image:
            return graph.op("BiasAdd", product, x.bias, image, domain=MICROSOFT)
        tokens = [graph.op("Reshape", one, graph.constant([0, -1, x.channels])) for one in (product, image)]
        made = graph.op("BiasAdd", tokens[0], x.bias, tokens[1], domain=MICROSOFT)
        return graph.op("Reshape", made, graph.op("Shape", image))

    def add_to_pixels(self, x: Value, vector: Value) -> Value:
        """Lazily, because the norm that follows adds it."""
        made = PixelSum(x, vector, self.total)
        made.is_image = True
        return made

    def join(self, *images: Value) -> Value:
        """Put images' channels after one another."""
        return _as_image(super().join(*images))

    def tokens(self, image: Value) -> Value:
        """Moves no data."""
        flat = self.graph.constant([0, -1, image.channels])
        return Value(image.channels, self.graph.op("Reshape", image.name, flat))

    def image(self, tokens: Value, like: Value) -> Value:
        """Moves no data. A bias may still be added later."""
        graph, shape = self.graph, like.name

        def shaped(name: str) -> str:
            return graph.op("Reshape", name, graph.op("Shape", shape))

        if not isinstance(tokens, Affine):
            return _as_image(Value(tokens.channels, shaped(tokens.name)))
        product, whole = tokens.product, tokens
        return _as_image(
            Affine(
                tokens.channels,
                product=lambda: shaped(product()),
                bias=tokens.bias,
                whole=lambda: shaped(whole.name),
            )
        )

    def enlarged(self, image: Value, like: Value | None = None) -> Value:
        """Each pixel four times, then cropped.

        It does not use Resize: up to version 1.24, ONNX Runtime's CUDA provider has no kernel for Resize-19, and would
        copy the image to the CPU and back.
        """
        graph, channels = self.graph, image.channels
        apart = graph.op("Reshape", image.name, graph.constant([0, 0, 1, -1, 1, channels]))
        made = graph.op("Expand", apart, graph.constant([1, 1, 2, 1, 2, 1]))
        size = graph.op("Mul", graph.op("Shape", image.name), graph.constant([1, 2, 2, 1]))
        made = graph.op("Reshape", made, size)
        if like is not None:
            ends = graph.op("Shape", like.name, start=1, end=3)
            made = graph.op("Slice", made, graph.constant([0, 0]), ends, graph.constant([1, 2]))
        return _as_image(Value(channels, made))


def _as_image(value: Value) -> Value:
    value.is_image = True
    return value


def _require(reason: str, path: str) -> None:
    """Raise `UnsupportedModelError` if the provider has no kernel for a layer, and say for which."""
    if reason:
        raise UnsupportedModelError.advised(
            f"{path}: target 'cuda' has no kernel for {reason}",
            "use target 'portable'",
            joint="; ",
            component=path,
        )
