"""Export targets: which ONNX ops a fused module emits, one row per machine.

A target is a row of emitters. Every emitter is called while ``torch.export`` traces a patched module
(see :mod:`sdrt_export.fuse`) and returns fake tensors of the right shape; the op it names is what lands in the
graph. Nothing is pattern-matched afterwards, so an op is fused or the export fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.onnx.ops import symbolic, symbolic_multi_out

from sdrt.errors import RequestError

__all__ = ["OPSET", "TARGETS", "Target", "resolve_target"]

OPSET = 20
"""Gelu is an op from 20 on; the next kernels ONNX Runtime lacks on some providers come with 21."""

_CONTRIB = "com.microsoft::"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row of the target table.

    ``attention(q, k, v, heads, scale, causal)`` takes ``[batch, sequence, heads * head_dim]`` and returns the
    shape of ``q``. ``group_norm(x, groups, weight, bias, eps)`` takes ``[batch, channels, …]``.
    ``skip_layer_norm(x, skip, bias, weight, shift, eps)`` returns ``(layer_norm(h), h)`` for ``h = x + skip + bias``.
    ``quick_gelu(x, alpha)`` is ``x * sigmoid(alpha * x)``; SiLU is ``alpha = 1``.
    """

    name: str
    dtypes: tuple[str, ...]
    attention: Callable[[Tensor, Tensor, Tensor, int, float, bool], Tensor]
    group_norm: Callable[[Tensor, int, Tensor, Tensor, float], Tensor]
    skip_layer_norm: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    quick_gelu: Callable[[Tensor, float], Tensor]


def _multi_head_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    attrs: dict[str, Any] = {"num_heads": heads, "scale": scale, "unidirectional": int(causal)}
    return symbolic(
        f"{_CONTRIB}MultiHeadAttention", (q, k, v), attrs=attrs, dtype=q.dtype, shape=q.shape, version=1
    )


def _instance_group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """InstanceNormalization over ``[batch, groups, everything else]``, then scale and shift.

    GroupNormalization-21 takes 1.7 times as long on ONNX Runtime's CPU provider. Written in ONNX ops, not aten's:
    tracing sixty of these through symbolic shapes took a tenth of a U-Net's export, and computed shapes at run time.
    """
    batch, column = x.shape[0], (-1,) + (1,) * (x.ndim - 2)
    ones, zeros = (torch.full((groups,), value, dtype=x.dtype) for value in (1.0, 0.0))
    grouped = (batch, groups, x.numel() // (batch * groups))
    y = _onnx("Reshape", (x, torch.tensor([0, groups, -1])), grouped)
    y = _onnx("InstanceNormalization", (y, ones, zeros), grouped, epsilon=eps)
    shape = symbolic("Shape", (x,), dtype=torch.int64, shape=(x.ndim,), version=OPSET)
    y = _onnx("Reshape", (y, shape), x.shape)
    y = _onnx("Mul", (y, weight.reshape(column)), x.shape)
    return _onnx("Add", (y, bias.reshape(column)), x.shape)


def _onnx(op: str, inputs: tuple[Tensor, ...], shape: Sequence[int | torch.SymInt], **attrs: float) -> Tensor:
    """A standard ONNX op that gives the dtype of its first input."""
    given: dict[str, Any] = dict(attrs)
    return symbolic(op, inputs, attrs=given, dtype=inputs[0].dtype, shape=shape, version=OPSET)


def _fused_skip_layer_norm(
    x: Tensor, skip: Tensor, bias: Tensor | None, weight: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    # The bias of the linear before is the op's fifth input: one pass over the tensor instead of two.
    inputs = (x, skip, weight, shift) if bias is None else (x, skip, weight, shift, bias)
    normed, _mean, _inv_std, total = symbolic_multi_out(
        f"{_CONTRIB}SkipLayerNormalization",
        inputs,
        attrs={"epsilon": eps},
        dtypes=(x.dtype,) * 4,
        shapes=(x.shape,) * 4,
        version=1,
    )
    return normed, total


def _fused_quick_gelu(x: Tensor, alpha: float) -> Tensor:
    return symbolic(
        f"{_CONTRIB}QuickGelu", (x,), attrs={"alpha": alpha}, dtype=x.dtype, shape=x.shape, version=1
    )


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    # MatMul–Softmax–MatMul is the pattern that TensorRT, OpenVINO and DirectML fuse by themselves.
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


TARGETS: Mapping[str, Target | None] = {
    "cpu": Target(
        name="cpu",
        dtypes=("fp32", "fp16", "int8"),
        attention=_multi_head_attention,
        group_norm=_instance_group_norm,
        skip_layer_norm=_fused_skip_layer_norm,
        quick_gelu=_fused_quick_gelu,
    ),
    # The row is reserved: GroupNorm, NhwcConv and BiasSplitGelu want NHWC graphs in fp16.
    "cuda": None,
    "portable": Target(
        name="portable",
        dtypes=("fp32", "fp16"),
        attention=_plain_attention,
        group_norm=_instance_group_norm,
        skip_layer_norm=_plain_skip_layer_norm,
        quick_gelu=_plain_quick_gelu,
    ),
}


def resolve_target(name: str, dtype: str) -> Target:
    """The row called ``name``, if it can be exported in ``dtype``.

    Raises:
        RequestError: unknown target, one without an exporter yet, or a dtype the target has no kernels for.
    """
    ready = ", ".join(sorted(key for key, row in TARGETS.items() if row))
    if name not in TARGETS:
        raise RequestError(f"unknown target {name!r}: expected one of {ready}")
    target = TARGETS[name]
    if target is None:
        raise RequestError(
            f"target {name!r} cannot be exported by this version: use one of {ready} "
            "(a 'cpu' folder is what the runtime expects on the CUDA provider)"
        )
    if dtype not in target.dtypes:
        raise RequestError(f"target {name!r} has no dtype {dtype!r}: expected {', '.join(target.dtypes)}")
    return target
