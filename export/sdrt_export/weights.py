"""How a graph stores a checkpoint's weights: dtype, layout, and which of them are packed together.

If a target stores weights in another form than torch, every parameter is replaced by a stand-in while the module is
traced. It has the stored shape and dtype, but takes no memory. The weights are converted one by one when the graph is
written, so that exporting in float16 needs no second copy of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPAttention

from sdrt_export.targets import Target

__all__ = ["DTYPES", "Stored", "fill", "stand_ins"]

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
_IR = {torch.float32: ir.DataType.FLOAT, torch.float16: ir.DataType.FLOAT16}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One weight as the graph stores it. ``value()`` computes it in float32, ``[*shape]``."""

    value: Callable[[], Tensor]
    shape: tuple[int, ...]
    dtype: torch.dtype


@contextmanager
def stand_ins(model: nn.Module, target: Target, dtype: torch.dtype) -> Iterator[Mapping[str, Stored]]:
    """Replace ``model``'s parameters by stand-ins for what ``target`` stores in ``dtype``, while the context is open.

    Targets with ``channels_last`` store three kinds of weights in another form than torch: those of convolutions as
    ``[out, height, width, in]``, those of group norms in float32, and attention's projections of the same input packed
    together, interleaved by head, as ``to_qkv``, ``to_kv`` and ``qkv_proj``. Convolutions that are padded at one end
    only, the VAE's downsamplings, get zeros at the other end.
    """
    if dtype == torch.float32 and not target.channels_last:
        yield {}
        return
    originals = {name: parameter.data for name, parameter in model.named_parameters()}
    stored = {name: _plain(data, dtype) for name, data in originals.items()}
    added: list[tuple[nn.Module, str]] = []
    try:
        if target.channels_last:
            stored |= _channels_last(model, dtype)
            for path, module, name, parts, heads in _packings(model):
                stored |= _pack(module, f"{path}.{name}", name, parts, heads, dtype)
                added.append((module, name))
        for name, parameter in model.named_parameters():
            # Each has its own element, because a shared one would look like tied weights.
            parameter.data = torch.zeros((), dtype=stored[name].dtype).expand(stored[name].shape)
        yield stored
    finally:
        for module, name in added:
            delattr(module, name)
        for name, parameter in model.named_parameters():
            parameter.data = originals[name]


def fill(model: ir.Model, stored: Mapping[str, Stored], transposed: list[str]) -> None:
    """Put the weights into a graph that was traced with stand-ins. They are converted when it is written.

    ``transposed`` are the matrices that the graph stores transposed.
    """
    for name, weight in stored.items():
        value = model.graph.initializers.get(name)
        if value is None:
            continue
        shape = tuple(reversed(weight.shape)) if name in transposed else weight.shape
        value.const_value = ir.LazyTensor(
            lambda name=name, weight=weight: _tensor(weight, name in transposed),  # type: ignore[misc]
            dtype=_IR[weight.dtype],
            shape=ir.Shape(shape),
            name=name,
        )
        value.shape = ir.Shape(shape)


def _tensor(weight: Stored, transposed: bool) -> ir.TensorProtocol:
    value = weight.value().detach()
    value = value.t() if transposed else value
    return ir.tensor(value.to(weight.dtype).contiguous().numpy())


def _plain(data: Tensor, dtype: torch.dtype) -> Stored:
    return Stored(value=lambda: data, shape=tuple(data.shape), dtype=dtype)


def _channels_last(model: nn.Module, dtype: torch.dtype) -> dict[str, Stored]:
    """The weights of convolutions and group norms, by name."""
    stored = {}
    one_sided = {
        module.conv
        for module in model.modules()
        if isinstance(module, Downsample2D) and module.use_conv and module.padding == 0
    }
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            stored[f"{path}.weight"] = _last(module.weight.data, dtype, zeros=int(module in one_sided))
        elif isinstance(module, nn.GroupNorm) and module.affine:
            stored[f"{path}.weight"] = _plain(module.weight.data, torch.float32)
            stored[f"{path}.bias"] = _plain(module.bias.data, torch.float32)
    return stored


def _last(data: Tensor, dtype: torch.dtype, *, zeros: int = 0) -> Stored:
    """Weights as ``[out, rows, columns, in]``, with ``zeros`` rows above and ``zeros`` columns on the left.

    With one of each, a convolution that is padded below and on the right equals one that is padded on all sides, at
    every size. It takes 16/9 of the products, but cuDNN has no kernels for different padding at two ends.
    """
    out, into, rows, columns = data.shape
    return Stored(
        value=lambda: nn.functional.pad(data, (zeros, 0, zeros, 0)).permute(0, 2, 3, 1),
        shape=(out, rows + zeros, columns + zeros, into),
        dtype=dtype,
    )


def _packings(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, list[nn.Linear], int]]:
    """The projections to pack: path and module of the attention, the packed name, its parts, and the heads."""
    for path, module in model.named_modules():
        if isinstance(module, BasicTransformerBlock):
            for name in ("attn1", "attn2"):
                attn: Any = getattr(module, name)
                own = name == "attn1" and not module.only_cross_attention
                parts = [attn.to_q, attn.to_k, attn.to_v] if own else [attn.to_k, attn.to_v]
                yield f"{path}.{name}", attn, "to_qkv" if own else "to_kv", parts, attn.heads
        elif isinstance(module, CLIPAttention):
            parts = [module.q_proj, module.k_proj, module.v_proj]
            yield path, module, "qkv_proj", parts, module.num_heads


def _pack(
    module: nn.Module, path: str, name: str, parts: list[nn.Linear], heads: int, dtype: torch.dtype
) -> dict[str, Stored]:
    """Add a linear layer ``name`` to ``module``, whose output has all ``parts`` of each head side by side."""
    biased = parts[0].bias is not None
    packed = nn.Linear(1, 1, bias=biased, device="meta")
    setattr(module, name, packed)
    weights = [part.weight.data for part in parts]
    stored = {f"{path}.weight": _interleaved(weights, heads, dtype)}
    packed.weight = nn.Parameter(torch.zeros(()), requires_grad=False)
    if biased:
        packed.bias = nn.Parameter(torch.zeros(()), requires_grad=False)
        stored[f"{path}.bias"] = _interleaved([part.bias.data for part in parts], heads, dtype)
    return stored


def _interleaved(parts: list[Tensor], heads: int, dtype: torch.dtype) -> Stored:
    """The rows of all ``parts``, by head: ``[heads, parts, head_dim, …]``."""
    rows, *rest = parts[0].shape

    def value() -> Tensor:
        split = [part.reshape(heads, rows // heads, *rest) for part in parts]
        return torch.stack(split, dim=1).reshape(len(parts) * rows, *rest)

    return Stored(value=value, shape=(len(parts) * rows, *rest), dtype=dtype)
