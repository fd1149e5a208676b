"""The config of a U-Net in OpenAI's names: blocks, channels and depths from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdrt_export.checkpoints.derived.shapes import CONFIG_REMEDY, Shapes, heads_of

__all__ = ["derived_unet"]

_GROUPS = 32
# Stable Diffusion 1 and the upscaler have this many heads at every width.
_HEADS = 8
# The width of one embedded number of SDXL's sizes, for files without the text encoder.
_SIZE_WIDTH = 256


@dataclass(frozen=True)
class _Layer:
    """One resnet, and how many layers the transformer after it has; None without a transformer."""

    channels: int
    depth: int | None


Block = list[_Layer]


def derived_unet(shapes: Shapes, *, pooled: int | None, sizes: int) -> dict[str, Any]:
    """The config, as diffusers has it, without `sample_size`.

    Args:
        shapes: of the tensors, without their prefix.
        pooled: the width of the pooled text. None if it is not known.
        sizes: how many numbers SDXL or its refiner embeds beside it: 6 or 5.

    Raises:
        UnsupportedModelError: a tensor is missing, or no config can describe the blocks.
    """
    out, into = shapes.of("input_blocks.0.0.weight", 4)[:2]
    down, up = _down(shapes), _up(shapes)
    channels = [block[0].channels for block in down]
    context = _context(shapes, down, up)
    linear, labels = _is_linear(shapes, down), "label_emb.weight" in shapes
    heads = [heads_of(shapes, each) for each in channels] if linear and not labels else _HEADS
    time = shapes.of("time_embed.0.weight", 2)[0]
    return {
        **_constant(shapes, channels),
        "in_channels": into,
        "out_channels": shapes.of("out.2.weight", 4)[0],
        "block_out_channels": channels,
        "down_block_types": [_kind(shapes, "CrossAttnDownBlock2D", "DownBlock2D", block) for block in down],
        "up_block_types": [_kind(shapes, "CrossAttnUpBlock2D", "UpBlock2D", block) for block in up],
        "mid_block_type": _middle(shapes),
        "cross_attention_dim": context,
        "attention_head_dim": heads,
        "use_linear_projection": linear,
        "time_embedding_dim": None if time == 4 * out else time,
        "only_cross_attention": _only_cross(shapes, down, context),
        **_layers(shapes, down, up),
        **_embedded(shapes, pooled, sizes),
    }


def _constant(shapes: Shapes, channels: Sequence[int]) -> dict[str, Any]:
    """The keys that are the same in every Stable Diffusion, and that the tensors do not show."""
    if any(each % _GROUPS for each in channels):
        raise shapes.refused(
            f"has blocks of {channels} channels", f"multiples of {_GROUPS}; for others, {CONFIG_REMEDY}"
        )
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": _GROUPS,
    }


def _layer(shapes: Shapes, place: str) -> _Layer | None:
    """The layer at a place such as `input_blocks.2`. None if there is none."""
    if f"{place}.0.in_layers.0.weight" not in shapes:
        return None
    depth = None
    if f"{place}.1.proj_in.weight" in shapes:
        depth = shapes.counted(place + ".1.transformer_blocks.{}.norm1.weight")
    return _Layer(shapes.of(f"{place}.0.out_layers.3.weight", 4)[0], depth)


def _down(shapes: Shapes) -> list[Block]:
    """The blocks on the way down. Each ends with a downsampling, except the last."""
    blocks: list[Block] = [[]]
    place = 1
    while True:
        layer = _layer(shapes, f"input_blocks.{place}")
        if layer is not None:
            blocks[-1].append(layer)
        elif f"input_blocks.{place}.0.op.weight" in shapes:
            blocks.append([])
        else:
            return _whole(shapes, blocks, "input_blocks")
        place += 1


def _up(shapes: Shapes) -> list[Block]:
    """The blocks on the way up. Each ends with a layer that has an upsampling, except the last."""
    blocks: list[Block] = [[]]
    place = 0
    while (layer := _layer(shapes, f"output_blocks.{place}")) is not None:
        blocks[-1].append(layer)
        if any(f"output_blocks.{place}.{module}.conv.weight" in shapes for module in (1, 2)):
            blocks.append([])
        place += 1
    return _whole(shapes, blocks, "output_blocks")


def _whole(shapes: Shapes, blocks: list[Block], name: str) -> list[Block]:
    if not all(blocks):
        raise shapes.refused(f"has an empty block in {name}", "at least a resnet in each")
    return blocks


def _kind(shapes: Shapes, attends: str, plain: str, block: Block) -> str:
    """The name of a block's class. Either all of its layers have a transformer, or none has."""
    kinds = {layer.depth is not None for layer in block}
    if len(kinds) > 1:
        raise shapes.refused("has a block with transformers after some resnets only", "all or none")
    return attends if kinds == {True} else plain


def _transformers(down: list[Block], up: list[Block]) -> list[str]:
    """The places of all transformers with at least one layer."""
    found, place = [], 1
    for block in down:
        found += [f"input_blocks.{place + i}.1" for i, layer in enumerate(block) if layer.depth]
        place += len(block) + 1
    layers = [layer for block in up for layer in block]
    return found + [f"output_blocks.{i}.1" for i, layer in enumerate(layers) if layer.depth]


def _context(shapes: Shapes, down: list[Block], up: list[Block]) -> int:
    places = [*_transformers(down, up), "middle_block.1"]
    for place in places:
        name = f"{place}.transformer_blocks.0.attn2.to_k.weight"
        if name in shapes:
            return shapes.of(name, 2)[1]
    raise shapes.refused("has no transformer", "one that reads the text")


def _is_linear(shapes: Shapes, down: list[Block]) -> bool:
    """Whether a transformer begins with a matrix, in place of a 1x1 convolution."""
    places = [*_transformers(down, []), "middle_block.1"]
    axes = [found for place in places if (found := shapes.axes(f"{place}.proj_in.weight"))]
    return bool(axes) and axes[0] == 2


def _middle(shapes: Shapes) -> str | None:
    if "middle_block.0.in_layers.0.weight" not in shapes:
        return None
    attends = "middle_block.1.proj_in.weight" in shapes
    return "UNetMidBlock2DCrossAttn" if attends else "UNetMidBlock2D"


def _only_cross(shapes: Shapes, down: list[Block], context: int) -> bool | list[bool]:
    """Which blocks have cross-attention in place of self-attention, as in the upscaler."""
    found, place = [], 1
    for block in down:
        name = f"input_blocks.{place}.1.transformer_blocks.0.attn1.to_k.weight"
        # Both widths may be equal, as in the upscaler's last block, which has self-attention.
        width = shapes.of(name, 2)[1] if name in shapes else None
        found.append(width is not None and width != block[0].channels and width == context)
        place += len(block) + 1
    # The value has no effect on a block without attention. It is true there in the upscaler's config.
    if any(found):
        return [is_cross or block[0].depth is None for is_cross, block in zip(found, down, strict=True)]
    return False


def _layers(shapes: Shapes, down: list[Block], up: list[Block]) -> dict[str, Any]:
    """The keys for layers and depths, in their simplest form."""
    counts = [len(block) for block in down]
    if [len(block) for block in up] != [count + 1 for count in reversed(counts)]:
        raise shapes.refused(
            f"has {[len(block) for block in up]} layers on the way up",
            f"{[count + 1 for count in reversed(counts)]}, one more than on the way down",
        )
    depths = [[layer.depth for layer in block] for block in down]
    middle = shapes.counted("middle_block.1.transformer_blocks.{}.norm1.weight") or None
    if middle is not None:
        own = depths[-1]
        if set(own) not in ({None}, {middle}):
            raise shapes.refused(
                f"has {middle} transformer layers in the middle and {own} before it", "as many in both"
            )
        depths[-1] = [middle] * len(own)
    upward = [[layer.depth for layer in block] for block in up]
    return {"layers_per_block": counts[0] if len(set(counts)) == 1 else counts, **_depths(depths, upward)}


def _depths(down: list[list[int | None]], up: list[list[int | None]]) -> dict[str, Any]:
    simple = [_one(row) for row in down]
    back = [_one(row) for row in up]
    known = {one for one in simple if isinstance(one, int)}
    # A block without transformers may have any depth. The simplest config has the same depth for all blocks.
    usual = known.pop() if len(known) == 1 else 1
    ours: list[Any] = [usual if one is None else one for one in simple]
    # The blocks on the way up follow those on the way down, unless a list of their own says otherwise.
    mirrored = all(
        wanted is None or wanted == given for wanted, given in zip(back, reversed(ours), strict=True)
    )
    if all(one != [] for one in simple) and mirrored:
        return {"transformer_layers_per_block": ours[0] if len(set(ours)) == 1 else ours}
    return {
        "transformer_layers_per_block": [_written(row, one) for row, one in zip(down, simple, strict=True)],
        "reverse_transformer_layers_per_block": [
            _written(row, one) for row, one in zip(up, back, strict=True)
        ],
    }


def _one(row: list[int | None]) -> Any:
    """The depth of all layers of a block: a number, None without transformers, [] if they differ."""
    return row[0] if len(set(row)) == 1 else []


def _written(row: list[int | None], one: Any) -> Any:
    return row if one == [] else 1 if one is None else one


def _embedded(shapes: Shapes, pooled: int | None, sizes: int) -> dict[str, Any]:
    """The keys for what is embedded beside the timestep: labels, SDXL's pooled text and sizes, LCM's guidance."""
    found: dict[str, Any] = {
        "addition_embed_type": None,
        "addition_time_embed_dim": None,
        "projection_class_embeddings_input_dim": None,
        "num_class_embeds": None,
        "time_cond_proj_dim": None,
        "class_embed_type": None,
    }
    if "label_emb.weight" in shapes:
        found["num_class_embeds"] = shapes.of("label_emb.weight", 2)[0]
    if "time_embed.cond_proj.weight" in shapes:
        found["time_cond_proj_dim"] = shapes.of("time_embed.cond_proj.weight", 2)[1]
    if "label_emb.0.0.weight" in shapes:
        width = shapes.of("label_emb.0.0.weight", 2)[1]
        found["addition_embed_type"] = "text_time"
        found["projection_class_embeddings_input_dim"] = width
        found["addition_time_embed_dim"] = _size_width(shapes, width, pooled, sizes)
    return found


def _size_width(shapes: Shapes, width: int, pooled: int | None, sizes: int) -> int:
    rest = width - (width - sizes * _SIZE_WIDTH if pooled is None else pooled)
    if rest <= 0 or rest % sizes:
        raise shapes.refused(
            f"embeds {width} numbers beside a pooled text of {pooled}", f"{pooled}, and {sizes} sizes"
        )
    return rest // sizes
