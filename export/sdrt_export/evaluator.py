"""Runs graphs of target ``cuda`` with NumPy, so that exports can be checked without a GPU.

It is ONNX's reference evaluator with ONNX Runtime's operators. As in the kernels, products are summed in float32 and
every result is rounded to the graph's dtype. It refuses inputs that the kernels refuse (:mod:`sdrt_export.kernels`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sdrt.onnx.tensor_spec import TensorSpec
from sdrt_export import kernels
from sdrt_export.graphs.stored import StoredGraph

__all__ = ["Evaluator"]

Array = np.ndarray[Any, Any]


class Evaluator:
    """Runs a graph's file with NumPy. Weights stay mapped from their file until they are read."""

    def __init__(self, path: Path) -> None:
        graph = StoredGraph.read(path)
        self.metadata = dict(graph.metadata)
        self._graph = graph
        self.specs = {spec.name: spec for spec in map(_tensor_spec, graph.model.graph.input)}
        self.inputs = [name for name in self.specs if name not in graph.initializers]
        self.output_specs = [_tensor_spec(value) for value in graph.model.graph.output]
        self.outputs = [spec.name for spec in self.output_specs]
        self._proto = _without_weights(graph)
        self._parts: dict[tuple[str, ...], ReferenceEvaluator] = {}

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Compute ``outputs`` with only the nodes they need. Inputs that have a default may be left out."""
        part = self._part(tuple(outputs))
        given = {name: feeds[name] if name in feeds else self._graph.array(name) for name in part.input_names}
        return list(part.run(None, given))

    def _part(self, outputs: tuple[str, ...]) -> ReferenceEvaluator:
        if outputs not in self._parts:
            self._parts[outputs] = ReferenceEvaluator(_pruned(self._proto, outputs), new_ops=_OPERATORS)
        return self._parts[outputs]


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)


def _without_weights(graph: StoredGraph) -> onnx.ModelProto:
    """The graph with its weights as inputs, because initializers would be copied twice."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    known = {value.name for value in model.graph.input}
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        for name, tensor in graph.initializers.items()
        if name not in known
    )
    del model.graph.initializer[:]
    return model


def _pruned(model: onnx.ModelProto, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """The graph with only these ``outputs``, and only the nodes they need."""
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed & set(node.output) - {""}:
            needed |= set(node.input)
            nodes.append(node)
    by_name = {value.name: value for value in model.graph.output}
    graph = onnx.helper.make_graph(
        nodes[::-1],
        model.graph.name,
        [value for value in model.graph.input if value.name in needed],
        [by_name[name] for name in outputs],
    )
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _wide(array: Array) -> Array:
    return array.astype(np.float32)


def _sigmoid(x: Array) -> Array:
    made: Array = 1 / (1 + np.exp(-x))
    return made


def _gelu(x: Array) -> Array:
    made: Array = x * 0.5 * (1 + np.vectorize(erf, otypes=[np.float32])(x / np.sqrt(2.0)))
    return made


def _group_norm(x: Array, gamma: Array, beta: Array, groups: int, epsilon: float, activation: int) -> Array:
    """A group norm in NHWC and float32."""
    batch, height, width, channels = x.shape
    grouped = x.reshape(batch, height * width, groups, channels // groups)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = grouped.var(axis=(1, 3), keepdims=True)
    normed: Array = ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta
    return normed * _sigmoid(normed) if activation else normed


def _require_norm(x: Array, gamma: Array, beta: Array, groups: int, channels_last: int) -> None:
    if any(array.dtype != np.float32 for array in (gamma, beta)):
        raise TypeError("GroupNorm: gamma and beta must be float32")
    if not channels_last:
        raise ValueError("GroupNorm: channels must be last")
    _refuse("GroupNorm", kernels.group_norm(x.shape[3], groups))


def _refuse(name: str, reason: str) -> None:
    if reason:
        raise ValueError(f"{name}: ONNX Runtime's CUDA provider has no kernel for {reason}")


class _Contrib(OpRun):
    op_domain = "com.microsoft"


class GroupNorm(_Contrib):
    def _run(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        activation: int = 0,
        channels_last: int = 1,
        epsilon: float = 1e-5,
        groups: int = 1,
    ) -> tuple[Array]:
        _require_norm(x, gamma, beta, groups, channels_last)
        return (_group_norm(_wide(x), gamma, beta, groups, epsilon, activation).astype(x.dtype),)


class SkipGroupNorm(_Contrib):
    def _run(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        skip: Array,
        bias: Array | None = None,
        activation: int = 0,
        channels_last: int = 1,
        epsilon: float = 1e-5,
        groups: int = 1,
    ) -> tuple[Array, ...]:
        _require_norm(x, gamma, beta, groups, channels_last)
        if skip.shape != x.shape and skip.shape != (x.shape[0], x.shape[3]):
            raise ValueError(f"SkipGroupNorm: a skip of {skip.shape} for {x.shape}")
        skip = skip if skip.ndim == 4 else skip[:, None, None, :]
        total = (_wide(x) + _wide(skip) + (0 if bias is None else _wide(bias))).astype(x.dtype)
        normed = _group_norm(_wide(total), gamma, beta, groups, epsilon, activation).astype(x.dtype)
        return (normed, total)[: len(self.onnx_node.output)]


class NhwcConv(_Contrib):
    def _run(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        dilations: Sequence[int] = (1, 1),
        group: int = 1,
        kernel_shape: Sequence[int] = (),
        pads: Sequence[int] = (0, 0, 0, 0),
        strides: Sequence[int] = (1, 1),
    ) -> tuple[Array]:
        _refuse("NhwcConv", kernels.nhwc_conv(pads, group, dilations))
        if tuple(kernel_shape) != weight.shape[1:3]:
            raise ValueError(f"NhwcConv: kernel {kernel_shape} for weights of {weight.shape}")
        top, left, bottom, right = pads
        padded = np.pad(_wide(x), ((0, 0), (top, bottom), (left, right), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(weight.shape[1:3]), axis=(1, 2))
        windows = windows[:, :: strides[0], :: strides[1]]  # [batch, h, w, in, rows, columns]
        made = np.tensordot(windows, _wide(weight), axes=([4, 5, 3], [1, 2, 3]))
        return ((made if bias is None else made + _wide(bias)).astype(x.dtype),)


class MultiHeadAttention(_Contrib):
    def _run(
        self,
        query: Array,
        key: Array | None = None,
        value: Array | None = None,
        num_heads: int = 1,
        scale: float = 0.0,
        unidirectional: int = 0,
    ) -> tuple[Array]:
        q, k, v = _heads(query, key, value, num_heads)
        scale = scale or q.shape[-1] ** -0.5  # zero stands for the usual scale
        scores = np.matmul(_wide(q), _wide(k).swapaxes(-1, -2)) * np.float32(scale)
        if unidirectional:
            scores = scores + np.triu(np.full(scores.shape[-2:], -np.inf, np.float32), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out = np.matmul(scores / scores.sum(-1, keepdims=True), _wide(v))
        batch, heads, length, width = out.shape
        return (out.swapaxes(1, 2).reshape(batch, length, heads * width).astype(query.dtype),)


def _heads(query: Array, key: Array | None, value: Array | None, heads: int) -> list[Array]:
    """Queries, keys and values as ``[batch, heads, sequence, head_dim]``, from packed or separate inputs."""
    if query.ndim == 5:
        parts = [query[:, :, :, i] for i in range(3)]
    elif key is not None and key.ndim == 5:
        parts = [query, key[:, :, :, 0], key[:, :, :, 1]]
    else:
        assert key is not None
        assert value is not None
        parts = [query, key, value]
    return [part.reshape(*part.shape[:2], heads, -1).swapaxes(1, 2) for part in parts]


class SkipLayerNormalization(_Contrib):
    def _run(
        self,
        x: Array,
        skip: Array,
        gamma: Array,
        beta: Array | None = None,
        bias: Array | None = None,
        epsilon: float = 1e-12,
    ) -> tuple[Array, ...]:
        total = _wide(x) + _wide(skip) + (0 if bias is None else _wide(bias))
        centred = total - total.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * _wide(gamma)
        normed = normed if beta is None else normed + _wide(beta)
        nothing = np.zeros(0, np.float32)  # the mean and the deviation, which our graphs do not read
        return (normed.astype(x.dtype), nothing, nothing, total.astype(x.dtype))[: len(self.onnx_node.output)]


class BiasSplitGelu(_Contrib):
    def _run(self, x: Array, bias: Array) -> tuple[Array]:
        _refuse("BiasSplitGelu", kernels.bias_split_gelu(x.shape[-1] // 2))
        left, right = np.split(_wide(x) + _wide(bias), 2, axis=-1)
        return ((left * _gelu(right)).astype(x.dtype),)


class BiasAdd(_Contrib):
    def _run(self, x: Array, bias: Array, skip: Array) -> tuple[Array]:
        _refuse("BiasAdd", kernels.bias_add(x.ndim))
        if x.shape != skip.shape:
            raise ValueError(f"BiasAdd: {x.shape} and {skip.shape}")
        return ((_wide(x) + _wide(bias) + _wide(skip)).astype(x.dtype),)


class QuickGelu(_Contrib):
    def _run(self, x: Array, alpha: float = 1.702) -> tuple[Array]:
        return ((_wide(x) * _sigmoid(np.float32(alpha) * _wide(x))).astype(x.dtype),)


class MatMul(OpRun):
    """In float32, because NumPy is slow at products of float16."""

    op_domain = ""

    def _run(self, a: Array, b: Array) -> tuple[Array]:
        return (np.matmul(_wide(a), _wide(b)).astype(a.dtype),)


class Gemm(OpRun):
    op_domain = ""

    def _run(
        self,
        a: Array,
        b: Array,
        c: Array | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        transA: int = 0,
        transB: int = 0,
    ) -> tuple[Array]:
        left, right = _wide(a.T if transA else a), _wide(b.T if transB else b)
        made = np.float32(alpha) * (left @ right)
        return ((made if c is None else made + np.float32(beta) * _wide(c)).astype(a.dtype),)


_OPERATORS: list[type[OpRun]] = [
    GroupNorm,
    SkipGroupNorm,
    NhwcConv,
    MultiHeadAttention,
    SkipLayerNormalization,
    BiasSplitGelu,
    BiasAdd,
    QuickGelu,
    MatMul,
    Gemm,
]
