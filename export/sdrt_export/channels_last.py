"""The U-Net and the VAE in NHWC, for ONNX Runtime's CUDA kernels. Only inputs and outputs are transposed.

diffusers' forwards are written for NCHW, so this module has its own walk over their blocks. It fuses sums: residuals,
timestep embeddings and convolutions' biases are added in the next group norm (SkipGroupNorm), or in one pass if there
is none (BiasAdd).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from sdrt.errors import UnsupportedModelError
from sdrt_export import kernels, operators

__all__ = ["check", "clip_attention", "conv2d", "decode", "downsample2d", "encode", "unet"]


class Sum:
    """The sum ``x + skip + bias``, not computed yet. All but the bias are ``[batch, height, width, channels]``."""

    def __init__(self, x: Tensor, skip: Tensor, bias: Tensor | None) -> None:
        self.x, self.skip, self.bias = x, skip, bias
        self._total: Tensor | None = None

    def normed(self, norm: nn.GroupNorm, silu: bool) -> Tensor:
        """The group norm of the sum, in one operator that also computes the sum."""
        normed, self._total = operators.skip_group_norm(
            self.x, self.skip, self.bias, *_norm_arguments(norm), silu=silu
        )
        return normed

    def total(self) -> Tensor:
        """The sum."""
        if self._total is None:
            self._total = self.skip + self.x if self.bias is None else self._add(self.bias)
        return self._total

    def _add(self, bias: Tensor) -> Tensor:
        total = operators.bias_add(_tokens(self.x), bias, _tokens(self.skip))
        return operators.reshape_like(total, self.skip)


Hidden = Tensor | Sum


def _total(hidden: Hidden) -> Tensor:
    return hidden.total() if isinstance(hidden, Sum) else hidden


def _norm(hidden: Hidden, norm: nn.GroupNorm, *, silu: bool) -> Tensor:
    if isinstance(hidden, Sum):
        return hidden.normed(norm, silu)
    return operators.group_norm(hidden, *_norm_arguments(norm), silu=silu)


def _norm_arguments(norm: nn.GroupNorm) -> tuple[int, Tensor, Tensor, float]:
    return norm.num_groups, norm.weight, norm.bias, norm.eps


def _tokens(x: Tensor) -> Tensor:
    """``[batch, height, width, channels]`` as ``[batch, height * width, channels]``, without moving data."""
    batch, height, width, channels = x.shape
    return operators.onnx_op(
        "Reshape", (x, torch.tensor([0, -1, channels])), (batch, height * width, channels)
    )


def _conv(module: nn.Conv2d, x: Tensor, *, biased: bool = True, padding: int | None = None) -> Tensor:
    """A convolution in NHWC. ``padding``, the same on all sides, replaces the module's."""
    above, left = (int(pad) if padding is None else padding for pad in module.padding)
    bias = module.bias if biased else None
    return operators.nhwc_conv(
        x, module.weight, bias, stride=int(module.stride[0]), pads=(above, left, above, left)
    )


def conv2d(module: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution in NCHW, with the kernel and weights of NHWC."""
    return _conv(module, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def downsample2d(module: Any, x: Tensor) -> Tensor:
    """A downsampling in NCHW, with the kernel and weights of NHWC."""
    return _downsample(module, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# --- blocks -------------------------------------------------------------------------------------------------


def _resnet(block: ResnetBlock2D, hidden: Hidden, temb: Tensor | None) -> Sum:
    """``temb`` is the timestep's embedding after its activation, ``[batch, channels]``. None in a VAE."""
    normed = _norm(hidden, block.norm1, silu=True)
    x = _total(hidden)
    if temb is None:
        normed = _norm(_conv(block.conv1, normed), block.norm2, silu=True)
    else:
        out = _conv(block.conv1, normed, biased=False)
        normed = Sum(out, block.time_emb_proj(temb), block.conv1.bias).normed(block.norm2, silu=True)
    skip = x if block.conv_shortcut is None else _conv(block.conv_shortcut, x)
    return Sum(_conv(block.conv2, normed, biased=False), skip, block.conv2.bias)


def _transformer(module: Any, hidden: Hidden, context: Tensor) -> Sum:
    normed = _norm(hidden, module.norm, silu=False)
    residual = _total(hidden)
    linear = module.use_linear_projection
    tokens = module.proj_in(_tokens(normed)) if linear else _tokens(_conv(module.proj_in, normed))
    for block in module.transformer_blocks:
        tokens = _transformer_block(block, tokens, context)
    if linear:
        out = operators.reshape_like(F.linear(tokens, module.proj_out.weight), residual)
    else:
        out = _conv(module.proj_out, operators.reshape_like(tokens, residual), biased=False)
    return Sum(out, residual, module.proj_out.bias)


def _transformer_block(block: BasicTransformerBlock, h: Tensor, context: Tensor) -> Tensor:
    attention = _cross_attention if block.only_cross_attention else _self_attention
    out = attention(block.attn1, block.norm1(h), context)
    normed, h = _skip_layer_norm(out, h, block.attn1.to_out[0].bias, block.norm2)
    out = _cross_attention(block.attn2, normed, context)
    normed, h = _skip_layer_norm(out, h, block.attn2.to_out[0].bias, block.norm3)
    gate, _, linear = block.ff.net
    return operators.bias_add(F.linear(_geglu(gate.proj, normed), linear.weight), linear.bias, h)


def _skip_layer_norm(x: Tensor, skip: Tensor, bias: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return operators.skip_layer_norm(x, skip, bias, norm.weight, norm.bias, norm.eps)


def _self_attention(attn: Any, x: Tensor, context: Tensor) -> Tensor:
    out = operators.packed_self_attention(attn.to_qkv(x), attn.heads, attn.scale, False)
    return F.linear(out, attn.to_out[0].weight)


def _cross_attention(attn: Any, x: Tensor, context: Tensor) -> Tensor:
    out = operators.packed_cross_attention(attn.to_q(x), attn.to_kv(context), attn.heads, attn.scale)
    return F.linear(out, attn.to_out[0].weight)


def _geglu(proj: nn.Linear, x: Tensor) -> Tensor:
    if not kernels.bias_split_gelu(proj.out_features // 2):
        return operators.bias_split_gelu(F.linear(x, proj.weight), proj.bias)
    value: Tensor
    value, gate = proj(x).chunk(2, dim=-1)
    return value * F.gelu(gate)


def clip_attention(attn: Any, x: Tensor) -> Tensor:
    """CLIP's attention up to the output projection, without its bias, which the next norm adds."""
    # Packed is as good as any form: causal attention excludes TensorRT's runners, and the other kernels (flash, cuDNN,
    # memory efficient, unfused) take all forms of inputs.
    out = operators.packed_self_attention(attn.qkv_proj(x), attn.num_heads, attn.scale, True)
    return F.linear(out, attn.out_proj.weight)


def _attention(attn: Attention, hidden: Hidden) -> Sum:
    """The VAE's attention, with one head over all pixels."""
    normed, x = _norm(hidden, attn.group_norm, silu=False), _total(hidden)
    tokens = _tokens(normed)
    q, k, v = attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens)
    out = operators.multi_head_attention(q, k, v, attn.heads, attn.scale, False)
    out = operators.reshape_like(F.linear(out, attn.to_out[0].weight), x)
    return Sum(out, x, attn.to_out[0].bias)


def _upsample(up: Any, x: Tensor, like: Tensor | None = None) -> Tensor:
    """Double the size by nearest neighbour, crop to the size of ``like``, which may be odd, then convolve."""
    x = operators.doubled(x, channels_last=True)
    x = x if like is None else operators.cropped_like(x, like)
    return _conv(up.conv if up.name == "conv" else up.Conv2d_0, x) if up.use_conv else x


def _downsample(down: Any, x: Tensor) -> Tensor:
    # A module without padding is padded at the bottom and on the right only. Its weights are stored with an additional
    # row and column of zeros (see :mod:`sdrt_export.weights`), so that padding on all sides gives the same result.
    return _conv(down.conv, x, padding=1 if down.padding == 0 else None)


# --- models -------------------------------------------------------------------------------------------------


def unet(model: Any, sample: Tensor, temb: Tensor, context: Tensor) -> Tensor:
    """The output for ``sample`` ``[batch, in, height, width]``, in the same size. ``temb`` is ``[batch, channels]``."""
    # Once for all. In diffusers each resnet activates it.
    temb = operators.quick_gelu(temb, 1.0)
    hidden: Hidden = _conv(model.conv_in, sample.permute(0, 2, 3, 1))
    skips: list[Hidden] = [hidden]
    for block in model.down_blocks:
        for resnet, attention in _layers(block):
            hidden = _layer(resnet, attention, hidden, temb, context)
            skips.append(hidden)
        for down in block.downsamplers or ():
            hidden = _downsample(down, _total(hidden))
            skips.append(hidden)
    hidden = _middle(model.mid_block, hidden, lambda attn, x: _transformer(attn, x, context), temb)
    for block in model.up_blocks:
        for resnet, attention in _layers(block):
            joined = torch.cat([_total(hidden), _total(skips.pop())], dim=-1)
            hidden = _layer(resnet, attention, joined, temb, context)
        for up in block.upsamplers or ():
            hidden = _upsample(up, _total(hidden), _total(skips[-1]))
    return _last(model, hidden)


def encode(model: Any, sample: Tensor) -> Tensor:
    """The VAE's encoder: ``[batch, 3, height, width]`` to the moments ``[batch, 2 * latent, h, w]``."""
    half = model.encoder
    hidden: Hidden = _conv(half.conv_in, sample.permute(0, 2, 3, 1))
    for block in half.down_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, None)
        for down in block.downsamplers or ():
            hidden = _downsample(down, _total(hidden))
    return _last(half, _middle(half.mid_block, hidden, _attention, None), after=model.quant_conv)


def decode(model: Any, latent_sample: Tensor) -> Tensor:
    """The VAE's decoder: ``[batch, latent, h, w]`` to ``[batch, 3, height, width]``."""
    half, x = model.decoder, latent_sample.permute(0, 2, 3, 1)
    x = x if model.post_quant_conv is None else _conv(model.post_quant_conv, x)
    hidden = _middle(half.mid_block, _conv(half.conv_in, x), _attention, None)
    for block in half.up_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, None)
        for up in block.upsamplers or ():
            hidden = _upsample(up, _total(hidden))
    return _last(half, hidden)


def _layers(block: Any) -> list[tuple[ResnetBlock2D, Any]]:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return list(zip(block.resnets, attentions, strict=True))


def _layer(resnet: ResnetBlock2D, attention: Any, hidden: Hidden, temb: Tensor, context: Tensor) -> Sum:
    made = _resnet(resnet, hidden, temb)
    return made if attention is None else _transformer(attention, made, context)


def _middle(block: Any, hidden: Hidden, attend: Callable[[Any, Hidden], Sum], temb: Tensor | None) -> Hidden:
    if block is None:
        return hidden
    hidden = _resnet(block.resnets[0], hidden, temb)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            hidden = attend(attention, hidden)
        hidden = _resnet(resnet, hidden, temb)
    return hidden


def _last(half: Any, hidden: Hidden, after: nn.Conv2d | None = None) -> Tensor:
    x = _conv(half.conv_out, _norm(hidden, half.conv_norm_out, silu=True))
    x = x if after is None else _conv(after, x)
    return x.permute(0, 3, 1, 2)


# --- what it covers -----------------------------------------------------------------------------------------

_BLOCKS = {
    *("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UNetMidBlock2DCrossAttn"),
    *("DownEncoderBlock2D", "UpDecoderBlock2D", "UNetMidBlock2D"),
}


def check(half: Any, name: str) -> None:
    """Raise UnsupportedModelError for blocks or configurations that the walk does not support."""
    blocks = [*half.down_blocks] if hasattr(half, "down_blocks") else []
    blocks += [*half.up_blocks] if hasattr(half, "up_blocks") else []
    blocks += [half.mid_block] if getattr(half, "mid_block", None) is not None else []
    kinds = [type(block).__name__ for block in blocks if type(block).__name__ not in _BLOCKS]
    if not isinstance(getattr(half, "conv_norm_out", None), nn.GroupNorm):
        kinds.append("an output without a group norm")
    kinds += [f"{path}: {what}" for path, module in half.named_modules() for what in _odd(module)]
    if kinds:
        raise UnsupportedModelError.advised(
            f"{name}: {kinds[0]} is not supported by target 'cuda'", "use target 'portable'", component=name
        )


def _odd(module: nn.Module) -> list[str]:
    odd = _ODD.get(type(module).__name__)
    return [] if odd is None else [what for what, holds in odd(module).items() if holds]


def _odd_resnet(block: Any) -> dict[str, bool]:
    return {
        "a resnet that resizes": block.upsample is not None or block.downsample is not None,
        f"a resnet with {block.time_embedding_norm} time embedding": block.time_emb_proj is not None
        and block.time_embedding_norm != "default",
        "a resnet with another activation than SiLU": not isinstance(block.nonlinearity, nn.SiLU),
        "a resnet that scales its output": block.output_scale_factor != 1,
        "a resnet that takes its time embedding as it is": block.skip_time_act,
    }


def _odd_attention(attn: Any) -> dict[str, bool]:
    return {
        "attention that scales its output": attn.rescale_output_factor != 1,
        "attention with norms of queries": attn.norm_q is not None or attn.norm_k is not None,
        "attention with a spatial norm": attn.spatial_norm is not None,
        "attention without a residual": attn.group_norm is not None and not attn.residual_connection,
    }


def _without_kernel(reason: str) -> dict[str, bool]:
    return {reason: True} if reason else {}


_ODD: Mapping[str, Callable[[Any], dict[str, bool]]] = {
    "ResnetBlock2D": _odd_resnet,
    "Attention": _odd_attention,
    "Upsample2D": lambda up: {"a transposed convolution": up.use_conv_transpose or not up.interpolate},
    "Downsample2D": lambda down: {
        "downsampling by pooling": not down.use_conv,
        "downsampling with a norm": down.norm is not None,
        "downsampling by another kernel than 3x3": down.padding == 0
        and tuple(down.conv.kernel_size) != (3, 3),
    },
    "BasicTransformerBlock": lambda block: {
        f"norm {block.norm_type}": block.norm_type != "layer_norm" or block.pos_embed is not None,
        "a block without a second attention": block.attn2 is None,
        "a feed-forward that is no GEGLU": type(block.ff.net[0]).__name__ != "GEGLU",
    },
    "Conv2d": lambda conv: {
        "a convolution that is not padded with zeros": conv.padding_mode != "zeros",
        **_without_kernel(kernels.nhwc_conv((0, 0, 0, 0), conv.groups, conv.dilation)),
    },
    "GroupNorm": lambda norm: {
        "a group norm without weights": not norm.affine,
        **_without_kernel(kernels.group_norm(norm.num_channels, norm.num_groups)),
    },
}
