"""Cuts the VAE at every group norm, so that the runtime can process images of any size in tiles, exactly.

A group norm needs the mean and variance of the whole image, and estimates from tiles show. So the graph has a part for
each stretch between two norms, which takes mean and variance as inputs. The runtime runs all tiles of a part before the
next part, and measures its output (:mod:`sdrt.vae.stages`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from sdrt.vae.stages import Stage
from sdrt_export.targets import Target

__all__ = ["STAGES", "Part", "forward", "parts"]

Inputs = dict[str, Tensor]
Body = Callable[[Inputs, Target], Tensor]

_BLOCKS = {"DownEncoderBlock2D", "UpDecoderBlock2D"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stage: ``norm`` normalises ``sample``, if there is a norm, then ``body`` takes all inputs.

    ``channels`` are those of the input, ``skip_channels`` those of the residual.
    """

    stage: Stage
    body: Body
    channels: int
    norm: nn.GroupNorm | None = None
    skip_channels: int = 0

    def examples(self) -> Inputs:
        """Inputs for tracing, by the runtime's names. Only their shapes matter."""
        size = (6, 8)
        shapes: dict[str, tuple[int, ...]] = {
            "sample": (1, self.channels, *size),
            "mean": (self.stage.groups,),
            "variance": (self.stage.groups,),
            "skip": (1, self.skip_channels, *size),
            "whole": (1, self.channels, 10, 12),
        }
        return {self.stage.input(name): torch.ones(shapes[name]) for name in self.stage.takes}

    def axes(self, index: int) -> dict[str, dict[int, str]]:
        """The free dimensions of its inputs, with other names than those of other parts."""
        here = {2: f"height_{index}", 3: f"width_{index}"}
        whole = {2: f"whole_height_{index}", 3: f"whole_width_{index}"}
        free = {"sample": here, "skip": here, "whole": whole}
        return {self.stage.input(name): free.get(name, {}) for name in self.stage.takes}

    def __call__(self, inputs: Mapping[str, Tensor], target: Target, dtype: torch.dtype) -> Tensor:
        """The output in float32, computed in ``dtype``. ``inputs`` have the runtime's names."""
        prefix = self.stage.input("")
        own = {name[len(prefix) :]: tensor for name, tensor in inputs.items() if name.startswith(prefix)}
        if self.norm is not None:
            scale, shift = _scale_and_shift(self.norm, own["mean"], own["variance"])
            own["normed"] = own["sample"] * scale + shift
        return self.body({name: value.to(dtype) for name, value in own.items()}, target).float()


def parts(name: str, model: AutoencoderKL) -> list[Part]:
    """The parts of ``vae_encoder`` or ``vae_decoder``, in order. Empty for a VAE with other blocks."""
    half = getattr(model, name.removeprefix("vae_"))
    blocks = half.down_blocks if name == "vae_encoder" else half.up_blocks
    if any(type(block).__name__ not in _BLOCKS for block in blocks) or not _plain(half):
        return []
    return list(STAGES[name](model))


def forward(
    model_parts: list[Part], target: Target, dtype: torch.dtype
) -> Callable[[Any, Inputs], list[Tensor]]:
    """A forward that runs all parts independently of one another."""

    def run(model: AutoencoderKL, inputs: Inputs) -> list[Tensor]:
        return [part(inputs, target, dtype) for part in model_parts]

    return run


def _plain(half: nn.Module) -> bool:
    """Whether all blocks are of the kind that Stable Diffusion's VAE has."""
    resnets = (module for module in half.modules() if isinstance(module, ResnetBlock2D))
    return all(
        resnet.time_embedding_norm in ("default", "group")
        and resnet.time_emb_proj is None
        and resnet.upsample is None
        and resnet.downsample is None
        for resnet in resnets
    ) and isinstance(half.get_submodule("conv_norm_out"), nn.GroupNorm)


def _decoder(model: AutoencoderKL) -> Iterator[Part]:
    half = model.decoder
    yield _convolution("conv_in", half.conv_in, before=model.post_quant_conv)
    yield from _mid(half.mid_block)
    for i, block in enumerate(half.up_blocks):
        yield from _resnets(f"up_blocks.{i}", block)
        for up in block.upsamplers or ():
            stage = Stage(name=f"up_blocks.{i}.upsample", channels=up.out_channels, up=2, halo=1)
            yield Part(stage=stage, body=_only(up), channels=up.channels)
    yield _last(half)


def _encoder(model: AutoencoderKL) -> Iterator[Part]:
    half = model.encoder
    yield _convolution("conv_in", half.conv_in)
    for i, block in enumerate(half.down_blocks):
        yield from _resnets(f"down_blocks.{i}", block)
        for down in block.downsamplers or ():
            # The convolution needs a halo of one pixel. It is two, because tiles begin at even places.
            stage = Stage(name=f"down_blocks.{i}.downsample", channels=down.out_channels, down=2, halo=2)
            yield Part(stage=stage, body=_only(down), channels=down.channels)
    yield from _mid(half.mid_block)
    yield _last(half, after=model.quant_conv)


STAGES: Mapping[str, Callable[[AutoencoderKL], Iterator[Part]]] = {
    "vae_encoder": _encoder,
    "vae_decoder": _decoder,
}


def _only(module: nn.Module) -> Body:
    return lambda inputs, target: module(inputs["sample"])


def _convolution(name: str, conv: nn.Conv2d, before: nn.Module | None = None) -> Part:
    def body(inputs: Inputs, target: Target) -> Tensor:
        made: Tensor = conv(before(inputs["sample"]) if before is not None else inputs["sample"])
        return made

    stage = Stage(name=name, channels=conv.out_channels, halo=1)
    return Part(stage=stage, body=body, channels=conv.in_channels)


def _last(half: nn.Module, after: nn.Conv2d | None = None) -> Part:
    norm, conv = half.conv_norm_out, half.conv_out
    assert isinstance(norm, nn.GroupNorm)
    assert isinstance(conv, nn.Conv2d)

    def body(inputs: Inputs, target: Target) -> Tensor:
        made: Tensor = conv(half.get_submodule("conv_act")(inputs["normed"]))
        return made if after is None else after(made)

    channels = conv.out_channels if after is None else after.out_channels
    stage = Stage(name="conv_out", channels=channels, halo=1, groups=norm.num_groups)
    return Part(stage=stage, body=body, channels=norm.num_channels, norm=norm)


def _resnets(name: str, block: Any) -> Iterator[Part]:
    for i, resnet in enumerate(block.resnets):
        yield from _resnet(f"{name}.resnets.{i}", resnet)


def _resnet(name: str, resnet: ResnetBlock2D) -> Iterator[Part]:
    def first(inputs: Inputs, target: Target) -> Tensor:
        made: Tensor = resnet.conv1(resnet.nonlinearity(inputs["normed"]))
        return made

    def second(inputs: Inputs, target: Target) -> Tensor:
        made: Tensor = resnet.conv2(resnet.nonlinearity(inputs["normed"]))
        skip = inputs["skip"]
        skip = skip if resnet.conv_shortcut is None else resnet.conv_shortcut(skip)
        return (skip + made) / resnet.output_scale_factor if resnet.output_scale_factor != 1 else skip + made

    for label, norm, conv, body in (
        ("conv1", resnet.norm1, resnet.conv1, first),
        ("conv2", resnet.norm2, resnet.conv2, second),
    ):
        stage = Stage(
            name=f"{name}.{label}",
            channels=conv.out_channels,
            halo=1,
            groups=norm.num_groups,
            residual=label == "conv2",
        )
        yield Part(
            stage=stage,
            body=body,
            channels=conv.in_channels,
            norm=norm,
            skip_channels=resnet.in_channels,
        )


def _mid(block: nn.Module) -> Iterator[Part]:
    resnets, attentions = list(block.resnets), list(block.attentions)  # type: ignore[arg-type]
    yield from _resnet("mid_block.resnets.0", resnets[0])
    for i, (attention, resnet) in enumerate(zip(attentions, resnets[1:], strict=True)):
        if attention is not None:
            yield from _attention(f"mid_block.attentions.{i}", attention)
        yield from _resnet(f"mid_block.resnets.{i + 1}", resnet)


def _attention(name: str, attention: Attention) -> Iterator[Part]:
    """Two parts: queries, keys and values of the whole image, then each tile's queries with all keys and values."""
    norm, width = attention.group_norm, attention.to_q.out_features

    def project(inputs: Inputs, target: Target) -> Tensor:
        tokens = inputs["normed"].flatten(2).transpose(1, 2)
        made = torch.cat([attention.to_q(tokens), attention.to_k(tokens), attention.to_v(tokens)], dim=2)
        return made.transpose(1, 2).reshape(1, 3 * width, *inputs["sample"].shape[2:])

    def attend(inputs: Inputs, target: Target) -> Tensor:
        skip: Tensor = inputs["skip"]
        tile, whole = (inputs[key].flatten(2).transpose(1, 2) for key in ("sample", "whole"))
        query = tile[:, :, :width]
        key, value = whole[:, :, width : 2 * width], whole[:, :, 2 * width :]
        out: Tensor = target.attention(query, key, value, attention.heads, attention.scale, False)
        out = attention.to_out[0](out).transpose(1, 2).reshape(skip.shape)
        out = out + skip if attention.residual_connection else out
        return out if attention.rescale_output_factor == 1.0 else out / attention.rescale_output_factor

    channels = norm.num_channels
    stage = Stage(name=f"{name}.qkv", channels=3 * width, halo=0, groups=norm.num_groups)
    yield Part(stage=stage, body=project, channels=channels, norm=norm)
    stage = Stage(name=name, channels=channels, halo=0, residual=True, whole=True)
    yield Part(stage=stage, body=attend, channels=3 * width, skip_channels=channels)


def _scale_and_shift(norm: nn.GroupNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and shift of each channel, [C, 1, 1], from its group's mean and variance."""
    each = norm.num_channels // norm.num_groups
    inverse, middle = (
        value.reshape(-1, 1).expand(-1, each).reshape(-1)
        for value in (torch.rsqrt(variance + norm.eps), mean)
    )
    scale = norm.weight.float() * inverse
    return scale.reshape(-1, 1, 1), (norm.bias.float() - middle * scale).reshape(-1, 1, 1)
