"""Fusion by construction: while a component is traced, some modules run forwards that emit a target's operators.

Each row of ``_FUSED``, or of ``_CHANNELS_LAST`` for targets with that layout, maps a module class to its forward. The
forwards are set on the instances and removed again, so parameter names and other users of the classes are not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPAttention

from sdrt.errors import UnsupportedModelError
from sdrt_export import channels_last, operators
from sdrt_export.targets import OPTIMUM, Target

__all__ = ["attention_without_bias", "fused", "skip_norm"]

Forward = Callable[..., Any]


@contextmanager
def fused(module: nn.Module, target: Target) -> Iterator[nn.Module]:
    """Make ``module`` emit ``target``'s operators while the context is open.

    Raises:
        UnsupportedModelError: a module's configuration has no fused form.
    """
    patched: list[nn.Module] = []
    try:
        for name, child in module.named_modules():
            make = (_CHANNELS_LAST if target.channels_last else _FUSED).get(type(child))
            if make is not None:
                child.forward = MethodType(make(name, child, target), child)
                patched.append(child)
        yield module
    finally:
        for child in patched:
            del child.forward


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise UnsupportedModelError.advised(
            f"{name}: {what} has no fused form", f"export with {OPTIMUM}", joint="; ", component=name
        )


def attention_without_bias(attn: Attention, x: Tensor, context: Tensor | None, target: Target) -> Tensor:
    """Attention of ``x`` ``[batch, sequence, channels]`` up to the output projection, without its bias."""
    context = x if context is None else context
    q, k, v = attn.to_q(x), attn.to_k(context), attn.to_v(context)
    out = target.attention(q, k, v, attn.heads, attn.scale, False)
    return F.linear(out, attn.to_out[0].weight)


def skip_norm(
    x: Tensor, skip: Tensor, bias: Tensor | None, norm: nn.LayerNorm, target: Target
) -> tuple[Tensor, Tensor]:
    """``(norm(h), h)`` for ``h = x + skip + bias``."""
    return target.skip_layer_norm(x, skip, bias, norm.weight, norm.bias, norm.eps)


def _check_attention(name: str, attn: Attention) -> None:
    _require(attn.norm_q is None and attn.norm_k is None, name, "attention with query or key norms")
    _require(attn.added_kv_proj_dim is None, name, "attention with added key and value projections")
    _require(not attn.norm_cross, name, "attention with normalised context")
    _require(attn.spatial_norm is None, name, "attention with a spatial norm")


def _attention(name: str, module: nn.Module, target: Target) -> Forward:
    """The VAE's attention over an image: norm, attention, residual. The U-Net's are in its transformer blocks."""
    assert isinstance(module, Attention)
    _check_attention(name, module)

    def forward(attn: Attention, x: Tensor, temb: Tensor | None = None, **_: object) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = x.reshape(batch, channels, height * width)
        if attn.group_norm is not None:
            tokens = attn.group_norm(tokens)
        out: Tensor = attention_without_bias(attn, tokens.transpose(1, 2), None, target) + attn.to_out[0].bias
        out = out.transpose(1, 2).reshape(batch, channels, height, width)
        out = out + x if attn.residual_connection else out
        return out if attn.rescale_output_factor == 1.0 else out / attn.rescale_output_factor

    return forward


def _transformer_block(name: str, module: nn.Module, target: Target) -> Forward:
    """Self-attention, cross-attention and feed-forward. Each residual sum is fused with the next norm."""
    assert isinstance(module, BasicTransformerBlock)
    _require(
        module.norm_type == "layer_norm" and module.pos_embed is None, name, f"norm {module.norm_type!r}"
    )
    _require(module.attn2 is not None, name, "a block without a second attention")
    _check_attention(f"{name}.attn1", module.attn1)
    _check_attention(f"{name}.attn2", module.attn2)

    def forward(
        block: BasicTransformerBlock,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        first = encoder_hidden_states if block.only_cross_attention else None
        out = attention_without_bias(block.attn1, block.norm1(hidden_states), first, target)
        normed, h = skip_norm(out, hidden_states, block.attn1.to_out[0].bias, block.norm2, target)
        out = attention_without_bias(block.attn2, normed, encoder_hidden_states, target)
        normed, h = skip_norm(out, h, block.attn2.to_out[0].bias, block.norm3, target)
        return torch.add(block.ff(normed), h)

    return forward


def _clip_attention(name: str, module: nn.Module, target: Target) -> Forward:
    assert isinstance(module, CLIPAttention)

    def forward(attn: CLIPAttention, x: Tensor) -> Tensor:
        q, k, v = attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
        out = target.attention(q, k, v, attn.num_heads, attn.scale, True)
        return F.linear(out, attn.out_proj.weight)

    return forward


def _upsample(name: str, module: nn.Module, target: Target) -> Forward:
    """Nearest neighbour to the size of the skip connection, so that the graph takes odd latent sizes too."""
    assert isinstance(module, Upsample2D)
    _require(
        module.interpolate and not module.use_conv_transpose, name, "upsampling by transposed convolution"
    )
    _require(module.norm is None, name, "upsampling with a norm")

    def forward(up: Upsample2D, x: Tensor, output_size: Any = None, *_: object) -> Tensor:
        if target.channels_last:
            # Only the VAE in stages comes here, without an output size.
            assert output_size is None
            x = operators.doubled(x, channels_last=False)
        elif output_size is None:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        else:
            x = F.interpolate(x, size=output_size, mode="nearest")
        conv = up.conv if up.name == "conv" else up.Conv2d_0
        return conv(x) if up.use_conv else x

    return forward


def _plain_upsample(name: str, module: nn.Module, target: Target) -> Forward:
    """The upsampling of a TAESD."""
    assert isinstance(module, nn.Upsample)
    doubles = module.size is None and module.scale_factor in (2, (2, 2)) and module.mode == "nearest"
    _require(doubles, name, "upsampling other than by the nearest neighbour to twice the size")
    return lambda _, x: operators.doubled(x, channels_last=False)


def _group_norm(name: str, module: nn.Module, target: Target) -> Forward:
    assert isinstance(module, nn.GroupNorm)
    _require(module.affine, name, "a group norm without weights")
    return lambda norm, x: target.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


def _silu(name: str, module: nn.Module, target: Target) -> Forward:
    return lambda _, x: target.quick_gelu(x, 1.0)


def _quick_gelu(name: str, module: nn.Module, target: Target) -> Forward:
    return lambda _, x: target.quick_gelu(x, 1.702)


def _geglu(name: str, module: nn.Module, target: Target) -> Forward:
    def forward(gate: GEGLU, x: Tensor, *_: object) -> Tensor:
        value: Tensor
        value, gated = gate.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gated)

    return forward


_FUSED: Mapping[type[nn.Module], Callable[[str, nn.Module, Target], Forward]] = {
    Attention: _attention,
    BasicTransformerBlock: _transformer_block,
    CLIPAttention: _clip_attention,
    GEGLU: _geglu,
    nn.GroupNorm: _group_norm,
    nn.SiLU: _silu,
    QuickGELUActivation: _quick_gelu,
    Upsample2D: _upsample,
}

# The U-Net and the VAE have their own forwards in `channels_last`. These are for the text encoder, and for the VAE in
# stages and TAESD, which are traced in NCHW with weights stored for NHWC.
_CHANNELS_LAST: Mapping[type[nn.Module], Callable[[str, nn.Module, Target], Forward]] = {
    CLIPAttention: lambda name, module, target: channels_last.clip_attention,
    nn.Conv2d: lambda name, module, target: channels_last.conv2d,
    nn.SiLU: _silu,
    nn.Upsample: _plain_upsample,
    Downsample2D: lambda name, module, target: channels_last.downsample2d,
    QuickGELUActivation: _quick_gelu,
    Upsample2D: _upsample,
}
