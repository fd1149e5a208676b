"""The config of a ControlNet in a single file, from the shapes of its tensors and the U-Net that it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdrt_export.checkpoints.derived.shapes import Shapes

__all__ = ["derived_controlnet", "is_diffusers_controlnet"]

# What the tensors do not show. A ControlNet is a copy of half of the U-Net, so it has the U-Net's values.
_OF_UNET = (
    *("act_fn", "attention_head_dim", "num_attention_heads", "norm_num_groups", "norm_eps", "freq_shift"),
    *("flip_sin_to_cos", "downsample_padding", "mid_block_scale_factor", "resnet_time_scale_shift"),
    *("only_cross_attention", "addition_time_embed_dim"),
)


@dataclass(frozen=True)
class _Layer:
    """One resnet, and the place of the transformer after it, if there is one."""

    channels: int
    transformer: str | None


Block = list[_Layer]


def is_diffusers_controlnet(shapes: Shapes) -> bool:
    """Whether the names are diffusers'."""
    return "controlnet_mid_block.weight" in shapes


def derived_controlnet(shapes: Shapes, unet: Mapping[str, Any]) -> dict[str, Any]:
    """The config, as diffusers has it, of a ControlNet for a model whose U-Net has the config `unet`.

    Raises:
        UnsupportedModelError: a tensor is missing, or no config can describe the blocks.
    """
    theirs = is_diffusers_controlnet(shapes)
    blocks = list(_diffusers_blocks(shapes) if theirs else _ldm_blocks(shapes))
    if not all(blocks):
        raise shapes.refused("has an empty block", "at least a resnet in each")
    middle = "mid_block.attentions.0" if theirs else "middle_block.1"
    layers = {len(block) for block in blocks}
    if len(layers) > 1:
        raise shapes.refused(f"has blocks of {[len(block) for block in blocks]} layers", "as many in each")
    return {
        "_class_name": "ControlNetModel",
        **{key: unet[key] for key in _OF_UNET if key in unet},
        "in_channels": shapes.of("conv_in.weight" if theirs else "input_blocks.0.0.weight", 4)[1],
        "block_out_channels": [block[0].channels for block in blocks],
        "down_block_types": [_kind(shapes, block) for block in blocks],
        "layers_per_block": layers.pop(),
        "mid_block_type": _middle(shapes, middle),
        "transformer_layers_per_block": _depths(shapes, blocks, middle),
        **_transformers(shapes, blocks, middle),
        **_embedded(shapes, theirs),
        **_condition(shapes, theirs),
    }


def _ldm_blocks(shapes: Shapes) -> Iterator[Block]:
    """Each block ends with a downsampling, except the last."""
    block: Block = []
    place = 1
    while True:
        own = f"input_blocks.{place}"
        if f"{own}.0.in_layers.0.weight" in shapes:
            block.append(_layer(shapes, f"{own}.0.out_layers.3.weight", f"{own}.1"))
        elif f"{own}.0.op.weight" in shapes:
            yield block
            block = []
        else:
            break
        place += 1
    yield block


def _diffusers_blocks(shapes: Shapes) -> Iterator[Block]:
    index = 0
    while count := shapes.counted(f"down_blocks.{index}.resnets." + "{}.norm1.weight"):
        own = f"down_blocks.{index}"
        yield [
            _layer(shapes, f"{own}.resnets.{i}.conv2.weight", f"{own}.attentions.{i}") for i in range(count)
        ]
        index += 1
    if not index:
        raise shapes.refused("lacks down_blocks.0.resnets.0.norm1.weight", "a whole model")


def _layer(shapes: Shapes, convolution: str, transformer: str) -> _Layer:
    has_one = f"{transformer}.proj_in.weight" in shapes
    return _Layer(shapes.of(convolution, 4)[0], transformer if has_one else None)


def _kind(shapes: Shapes, block: Block) -> str:
    """The name of a block's class. Either all of its layers have a transformer, or none has."""
    kinds = {layer.transformer is not None for layer in block}
    if len(kinds) > 1:
        raise shapes.refused("has a block with transformers after some resnets only", "all or none")
    return "CrossAttnDownBlock2D" if kinds == {True} else "DownBlock2D"


def _middle(shapes: Shapes, place: str) -> str:
    return "UNetMidBlock2DCrossAttn" if f"{place}.proj_in.weight" in shapes else "UNetMidBlock2D"


def _depth(shapes: Shapes, place: str) -> int:
    return shapes.counted(place + ".transformer_blocks.{}.norm1.weight")


def _depths(shapes: Shapes, blocks: Sequence[Block], middle: str) -> list[Any]:
    """The layers of each block's transformers. The middle's are those of the last block."""
    found: list[Any] = []
    for block in blocks:
        depths = [1 if one.transformer is None else _depth(shapes, one.transformer) for one in block]
        found.append(depths[0] if len(set(depths)) == 1 else depths)
    inner = _depth(shapes, middle)
    if inner and blocks[-1][0].transformer is None:
        found[-1] = inner
    if inner and found[-1] != inner:
        raise shapes.refused(
            f"has {inner} transformer layers in the middle and {found[-1]} before it", "as many in both"
        )
    return found


def _transformers(shapes: Shapes, blocks: Sequence[Block], middle: str) -> dict[str, Any]:
    """The width of the texts, and whether a transformer begins with a matrix, in place of a 1x1 convolution."""
    places = [layer.transformer for block in blocks for layer in block if layer.transformer is not None]
    for place in [*places, middle]:
        name = f"{place}.transformer_blocks.0.attn2.to_k.weight"
        if name in shapes:
            linear = shapes.axes(f"{place}.proj_in.weight") == 2
            return {"cross_attention_dim": shapes.of(name, 2)[1], "use_linear_projection": linear}
    raise shapes.refused("has no transformer", "one that reads the text")


def _embedded(shapes: Shapes, theirs: bool) -> dict[str, Any]:
    """The keys for what is embedded beside the timestep: labels, or SDXL's pooled text and sizes."""
    labels = "class_embedding.weight" if theirs else "label_emb.weight"
    sizes = "add_embedding.linear_1.weight" if theirs else "label_emb.0.0.weight"
    found: dict[str, Any] = {"num_class_embeds": None, "addition_embed_type": None}
    if labels in shapes:
        found["num_class_embeds"] = shapes.of(labels, 2)[0]
    if sizes in shapes:
        found["addition_embed_type"] = "text_time"
        found["projection_class_embeddings_input_dim"] = shapes.of(sizes, 2)[1]
    return found


def _condition(shapes: Shapes, theirs: bool) -> dict[str, Any]:
    """The network that shrinks the control image. Every second convolution makes the image half as large."""
    first = "controlnet_cond_embedding.conv_in.weight" if theirs else "input_hint_block.0.weight"
    pattern = "controlnet_cond_embedding.blocks.{}.weight" if theirs else "input_hint_block.{}.weight"
    width, channels = shapes.of(first, 4)[:2]
    widths, index = [width], 1
    while (name := pattern.format(index if theirs else 2 * index + 2)) in shapes:
        widths.append(shapes.of(name, 4)[0])
        index += 2
    # In lllyasviel's names, the last convolution of the list is the one that diffusers calls conv_out.
    return {"conditioning_channels": channels, "conditioning_embedding_out_channels": widths}
