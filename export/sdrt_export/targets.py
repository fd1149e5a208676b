"""Export targets: the ONNX operators that fused modules emit, with a row for each kind of machine.

A target is a row of emitters, which are called while ``torch.export`` traces a patched module (see
:mod:`sdrt_export.fuse`). An emitter adds its operator to the graph and returns a fake tensor of the right shape.
Nothing is pattern-matched afterwards: an operator is fused, or the export fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sdrt.errors import RequestError
from sdrt_export.operators import (
    OPSET,
    multi_head_attention,
    onnx_op,
    quick_gelu,
    reshape_like,
    skip_layer_norm,
)

__all__ = ["AUTO", "OPSET", "OPTIMUM", "TARGETS", "Target", "resolve_target"]

AUTO = "auto"
"""The dtype that suits a target best."""
OPTIMUM = "--target portable --exporter optimum --dtype fp32"
"""The remedy for models without a fused form. The exporter optimum refuses other targets and dtypes."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row of the target table.

    ``attention(q, k, v, heads, scale, causal)`` takes ``[batch, sequence, heads * head_dim]`` and returns the
    shape of ``q``. ``group_norm(x, groups, weight, bias, eps)`` takes ``[batch, channels, …]``.
    ``skip_layer_norm(x, skip, bias, weight, shift, eps)`` returns ``(layer_norm(h), h)`` for ``h = x + skip + bias``.
    ``quick_gelu(x, alpha)`` is ``x * sigmoid(alpha * x)``; SiLU is ``alpha = 1``.

    ``dtypes`` are those that it can be exported in, the first by default ("auto"). With ``halves``, graphs in float16
    compute in float16. Without, they store weights in float16, widen them once at load and compute in float32. With
    ``channels_last``, the U-Net and the VAE are traced in that layout (see :mod:`sdrt_export.channels_last`), and some
    weights are packed. With ``host_indices``, the text encoder takes the position where each text ends, because a
    search on the device would go through the CPU.
    """

    name: str
    dtypes: tuple[str, ...]
    halves: bool = False
    channels_last: bool = False
    host_indices: bool = False
    attention: Callable[[Tensor, Tensor, Tensor, int, float, bool], Tensor]
    group_norm: Callable[[Tensor, int, Tensor, Tensor, float], Tensor]
    skip_layer_norm: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    quick_gelu: Callable[[Tensor, float], Tensor]

    @property
    def instead(self) -> str:
        """The options to try if an exported graph does not run, or differs from torch."""
        return OPTIMUM if self.name == "portable" else "--target portable"


def _instance_group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """InstanceNormalization over ``[batch, groups, everything else]``, then scale and shift.

    GroupNormalization-21 takes 1.7 times as long on ONNX Runtime's CPU provider. This uses ONNX's operators, not
    aten's: tracing sixty of them through symbolic shapes took a tenth of a U-Net's export, and left shapes to be
    computed at run time.
    """
    batch, column = x.shape[0], (-1,) + (1,) * (x.ndim - 2)
    ones, zeros = (torch.full((groups,), value, dtype=x.dtype) for value in (1.0, 0.0))
    grouped = (batch, groups, x.numel() // (batch * groups))
    y = onnx_op("Reshape", (x, torch.tensor([0, groups, -1])), grouped)
    y = reshape_like(onnx_op("InstanceNormalization", (y, ones, zeros), grouped, epsilon=eps), x)
    y = onnx_op("Mul", (y, weight.reshape(column)), x.shape)
    return onnx_op("Add", (y, bias.reshape(column)), x.shape)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    # TensorRT, OpenVINO and DirectML fuse the pattern MatMul–Softmax–MatMul themselves.
    batch, length, width = q.shape
    q, k, v = (t.reshape(batch, -1, heads, width // heads).transpose(1, 2) for t in (q, k, v))
    scores = torch.matmul(q * scale, k.transpose(-1, -2))
    if causal:
        scores = scores + torch.full((length, length), -math.inf, dtype=q.dtype, device=q.device).triu(1)
    out = torch.matmul(torch.softmax(scores, dim=-1), v)
    return out.transpose(1, 2).reshape(batch, length, width)


def _plain_skip_layer_norm(
    x: Tensor, skip: Tensor, bias: Tensor | None, weight: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    total = (x if bias is None else x + bias) + skip
    return torch.nn.functional.layer_norm(total, weight.shape, weight, shift, eps), total


def _plain_quick_gelu(x: Tensor, alpha: float) -> Tensor:
    return x * torch.sigmoid(x if alpha == 1.0 else alpha * x)


TARGETS: Mapping[str, Target] = {
    "cpu": Target(
        name="cpu",
        dtypes=("fp32", "fp16", "int8"),
        attention=multi_head_attention,
        group_norm=_instance_group_norm,
        skip_layer_norm=skip_layer_norm,
        quick_gelu=quick_gelu,
    ),
    # Not bfloat16, for which ONNX Runtime's GroupNorm and NhwcConv have no kernels.
    "cuda": Target(
        name="cuda",
        dtypes=("fp16", "fp32"),
        halves=True,
        channels_last=True,
        host_indices=True,
        attention=multi_head_attention,
        group_norm=_instance_group_norm,
        skip_layer_norm=skip_layer_norm,
        quick_gelu=quick_gelu,
    ),
    "portable": Target(
        name="portable",
        dtypes=("fp32", "fp16"),
        halves=True,
        attention=_plain_attention,
        group_norm=_instance_group_norm,
        skip_layer_norm=_plain_skip_layer_norm,
        quick_gelu=_plain_quick_gelu,
    ),
}


def resolve_target(name: str, dtype: str) -> Target:
    """The target called ``name``.

    Raises:
        RequestError: the target is unknown, or cannot be exported in ``dtype``.
    """
    if name not in TARGETS:
        raise RequestError.expected(
            f"unknown target {name!r}", f"one of {', '.join(sorted(TARGETS))}", argument="target"
        )
    target = TARGETS[name]
    if dtype not in (AUTO, *target.dtypes):
        raise RequestError.expected(
            f"target {name!r} has no dtype {dtype!r}", f"{', '.join(target.dtypes)}, {AUTO}", argument="dtype"
        )
    return target
