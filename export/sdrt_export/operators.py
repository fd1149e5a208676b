"""The operators that targets emit while ``torch.export`` traces: ONNX Runtime's, and some of ONNX's.

Each adds a node to the graph and returns a tensor of the right dtype and shape, whose values do not matter. Names and
layouts are those of ONNX Runtime's ``com.microsoft`` domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.onnx.ops import symbolic, symbolic_multi_out

from sdrt_export import kernels

__all__ = [
    "OPSET",
    "bias_add",
    "bias_split_gelu",
    "cropped_like",
    "doubled",
    "group_norm",
    "multi_head_attention",
    "nhwc_conv",
    "onnx_op",
    "packed_cross_attention",
    "packed_self_attention",
    "quick_gelu",
    "reshape_like",
    "skip_group_norm",
    "skip_layer_norm",
]

OPSET = 20
"""Opset 20 has Gelu. For opset 21, some of ONNX Runtime's providers lack kernels."""

Shape = Sequence[int | torch.SymInt]


def onnx_op(name: str, inputs: Sequence[Tensor | None], shape: Shape, **attrs: Any) -> Tensor:
    """A standard ONNX operator, whose output has the dtype of its first input."""
    assert inputs[0] is not None
    return symbolic(name, inputs, attrs=attrs, dtype=inputs[0].dtype, shape=shape, version=OPSET)


def _contrib(name: str, inputs: Sequence[Tensor | None], shape: Shape, **attrs: Any) -> Tensor:
    assert inputs[0] is not None
    return symbolic(
        f"com.microsoft::{name}", inputs, attrs=attrs, dtype=inputs[0].dtype, shape=shape, version=1
    )


def reshape_like(x: Tensor, like: Tensor) -> Tensor:
    """``x`` in the shape of ``like``, with the same number of elements, by one operator at run time."""
    return onnx_op("Reshape", (x, _shape(like)), like.shape)


def multi_head_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    """Attention of separate ``q``, ``k`` and ``v``, ``[batch, sequence, heads * head_dim]``."""
    attrs = {"num_heads": heads, "scale": scale, "unidirectional": int(causal)}
    return _contrib("MultiHeadAttention", (q, k, v), q.shape, **attrs)


def packed_self_attention(qkv: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    """Self-attention of a matrix product ``qkv``, ``[batch, sequence, heads * 3 * head_dim]``."""
    batch, length, width = qkv.shape
    packed = (batch, length, heads, 3, width // (3 * heads))
    qkv = onnx_op("Reshape", (qkv, torch.tensor([0, 0, *packed[2:]])), packed)
    attrs = {"num_heads": heads, "scale": scale, "unidirectional": int(causal)}
    return _contrib("MultiHeadAttention", (qkv,), (batch, length, width // 3), **attrs)


def packed_cross_attention(q: Tensor, kv: Tensor, heads: int, scale: float) -> Tensor:
    """Cross-attention of ``q`` and a matrix product ``kv``, ``[batch, sequence, heads * 2 * head_dim]``."""
    batch, length, width = kv.shape
    packed = (batch, length, heads, 2, width // (2 * heads))
    kv = onnx_op("Reshape", (kv, torch.tensor([0, 0, *packed[2:]])), packed)
    return _contrib("MultiHeadAttention", (q, kv), q.shape, num_heads=heads, scale=scale)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool) -> Tensor:
    """Group norm of ``x`` ``[batch, height, width, channels]``. ``weight`` and ``bias`` are always float32."""
    attrs = {"groups": groups, "epsilon": eps, "activation": int(silu), "channels_last": 1}
    return _contrib("GroupNorm", (x, weight, bias), x.shape, **attrs)


def skip_group_norm(
    x: Tensor,
    skip: Tensor,
    conv_bias: Tensor | None,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """``(group_norm(h), h)`` for ``h = x + skip + conv_bias``. ``skip`` is like ``x``, or ``[batch, channels]``."""
    inputs = (x, weight, bias, skip) if conv_bias is None else (x, weight, bias, skip, conv_bias)
    normed, total = symbolic_multi_out(
        "com.microsoft::SkipGroupNorm",
        inputs,
        attrs={"groups": groups, "epsilon": eps, "activation": int(silu), "channels_last": 1},
        dtypes=(x.dtype,) * 2,
        shapes=(x.shape,) * 2,
        version=1,
    )
    return normed, total


def nhwc_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, pads: tuple[int, int, int, int]
) -> Tensor:
    """Convolve ``x`` ``[batch, height, width, in]`` with ``weight`` ``[out, rows, columns, in]``. Pads: top, left, …"""
    batch, height, width, _ = x.shape
    out, rows, columns, _ = weight.shape
    top, left, bottom, right = pads
    shape = (
        batch,
        (height + top + bottom - rows) // stride + 1,
        (width + left + right - columns) // stride + 1,
        out,
    )
    assert not (reason := kernels.nhwc_conv(pads, 1, (1, 1))), reason
    inputs = (x, weight) if bias is None else (x, weight, bias)
    attrs = {"kernel_shape": [rows, columns], "strides": [stride] * 2, "pads": list(pads), "group": 1}
    return _contrib("NhwcConv", inputs, shape, **attrs, dilations=[1, 1])


def doubled(x: Tensor, *, channels_last: bool) -> Tensor:
    """``x`` with each pixel four times, which is nearest neighbour to twice the height and width.

    It does not use Resize: up to version 1.24, ONNX Runtime's CUDA provider has no kernel for Resize-19, and would copy
    the tensor to the CPU and back.
    """
    batch, channels = x.shape[0], x.shape[3 if channels_last else 1]
    height, width = x.shape[1:3] if channels_last else x.shape[2:]
    if channels_last:
        apart, shape = [0, 0, 1, -1, 1, channels], (batch, height, 1, width, 1, channels)
        times, whole = (1, 1, 2, 1, 2, 1), (batch, 2 * height, 2 * width, channels)
    else:
        apart, shape = [0, 0, 0, 1, -1, 1], (batch, channels, height, 1, width, 1)
        times, whole = (1, 1, 1, 2, 1, 2), (batch, channels, 2 * height, 2 * width)
    sizes = _shape(x) * torch.tensor([1, 2, 2, 1] if channels_last else [1, 1, 2, 2])
    made = onnx_op("Reshape", (x, torch.tensor(apart)), shape)
    repeated = tuple(size * count for size, count in zip(shape, times, strict=True))
    made = onnx_op("Expand", (made, torch.tensor(times)), repeated)
    return onnx_op("Reshape", (made, sizes), whole)


def cropped_like(x: Tensor, like: Tensor) -> Tensor:
    """``x`` ``[batch, height, width, channels]``, cropped to the height and width of ``like``."""
    ends = symbolic(
        "Shape", (like,), attrs={"start": 1, "end": 3}, dtype=torch.int64, shape=(2,), version=OPSET
    )
    shape = (x.shape[0], *like.shape[1:3], x.shape[3])
    return onnx_op("Slice", (x, torch.tensor([0, 0]), ends, torch.tensor([1, 2])), shape)


def _shape(x: Tensor) -> Tensor:
    return symbolic("Shape", (x,), dtype=torch.int64, shape=(x.ndim,), version=OPSET)


def bias_split_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """``a * gelu(b)`` for the halves ``a``, ``b`` of ``x + bias``, ``[batch, sequence, 2 * inner]``."""
    return _contrib("BiasSplitGelu", (x, bias), (*x.shape[:2], x.shape[2] // 2))


def bias_add(x: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    """``x + bias + skip`` of ``[batch, sequence, channels]``."""
    return _contrib("BiasAdd", (x, bias, skip), x.shape)


def skip_layer_norm(
    x: Tensor, skip: Tensor, bias: Tensor | None, weight: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """``(layer_norm(h), h)`` for ``h = x + skip + bias``."""
    # The fifth input is the bias of the linear before it, which saves a pass over the tensor.
    inputs = (x, skip, weight, shift) if bias is None else (x, skip, weight, shift, bias)
    normed, _mean, _inv_std, total = symbolic_multi_out(
        "com.microsoft::SkipLayerNormalization",
        inputs,
        attrs={"epsilon": eps},
        dtypes=(x.dtype, torch.float32, torch.float32, x.dtype),
        shapes=(x.shape, x.shape[:-1], x.shape[:-1], x.shape),
        version=1,
    )
    return normed, total


def quick_gelu(x: Tensor, alpha: float) -> Tensor:
    """``x * sigmoid(alpha * x)``."""
    return _contrib("QuickGelu", (x,), x.shape, alpha=alpha)
