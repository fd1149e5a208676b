"""The config of a U-Net: diffusers' keys, checked one by one, as the shape of each block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sdrt_export.architectures.config import OTHER_EXPORTER, Config

__all__ = ["BlockConfig", "UNetConfig"]

_DOWN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
_UP = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}
_MIDDLE = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None)
_CHANNELS = (320, 640, 1280, 1280)
_DOWN_DEFAULT = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
_UP_DEFAULT = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
# SDXL embeds 6 numbers beside the pooled text, its refiner 5. The pooled text of both is 1280 wide.
_TIME_IDS = (6, 5)
_POOLED_WIDTH = 1280
_MOST_CHANNELS, _MOST_LAYERS = 1 << 14, 64

_KNOWN = frozenset(
    {
        *("in_channels", "out_channels", "center_input_sample", "flip_sin_to_cos", "freq_shift"),
        *(
            "down_block_types",
            "mid_block_type",
            "up_block_types",
            "only_cross_attention",
            "block_out_channels",
        ),
        *("layers_per_block", "downsample_padding", "mid_block_scale_factor", "norm_num_groups", "norm_eps"),
        *("cross_attention_dim", "transformer_layers_per_block", "reverse_transformer_layers_per_block"),
        *("attention_head_dim", "num_attention_heads", "use_linear_projection", "addition_embed_type"),
        *("addition_time_embed_dim", "num_class_embeds", "resnet_time_scale_shift"),
        *("time_embedding_dim", "time_cond_proj_dim", "conv_in_kernel"),
        *("conv_out_kernel", "projection_class_embeddings_input_dim"),
    }
)
_FIXED: Mapping[str, Any] = {
    "act_fn": ("silu", "swish"),
    "dual_cross_attention": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "time_embedding_type": "positional",
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "attention_type": "default",
    "cross_attention_norm": None,
}
# Of the middle blocks, only UNetMidBlock2DSimpleCrossAttn reads `mid_block_only_cross_attention`. `upcast_attention`
# widens half precision in torch, where the kernels here accumulate in float32 anyway. The blocks above do not read
# `resnet_skip_time_act` and `resnet_out_scale_factor`.
_IGNORED = frozenset(
    {
        *("sample_size", "dropout", "upcast_attention", "addition_embed_type_num_heads"),
        *("resnet_skip_time_act", "resnet_out_scale_factor", "mid_block_only_cross_attention"),
    }
)


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """One block: its channels, heads, and for each of its resnets the layers of the transformer that follows."""

    channels: int
    heads: int
    depths: tuple[int, ...]
    attends: bool
    only_cross_attention: bool
    resamples: bool


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a U-Net.

    `added_width` is the width of the pooled text and all sizes together. The graph takes any division of it.
    `pooled_width` and `num_time_ids` are the likely division.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    down: tuple[BlockConfig, ...]
    mid: BlockConfig | None
    up: tuple[BlockConfig, ...]
    groups: int
    eps: float
    context_width: int
    time_width: int
    flip: bool
    shift: float
    center_input_sample: bool
    conv_in_kernel: int
    conv_out_kernel: int
    downsample_padding: int
    linear_projection: bool
    scale_and_shift: bool
    mid_scale: float
    num_class_embeds: int
    added_width: int
    pooled_width: int
    size_width: int
    num_time_ids: int
    guidance_width: int
    DOWN_BLOCKS: ClassVar[tuple[str, ...]] = _DOWN_DEFAULT
    """The kinds of blocks on the way down, if a config does not say them."""

    @classmethod
    def of(
        cls, values: Mapping[str, Any], component: str = "unet", remedy: str = OTHER_EXPORTER
    ) -> UNetConfig:
        """Read diffusers' config. Raises `UnsupportedModelError`, with a `remedy`, for unsupported values."""
        config = Config(component, values, remedy)
        config.check_keys(_KNOWN, _FIXED, _IGNORED, classes=("UNet2DConditionModel",))
        channels = config.wholes("block_out_channels", _CHANNELS, most=_MOST_CHANNELS)
        down, mid, up = _blocks(config, channels)
        return cls(
            in_channels=config.whole("in_channels", 4, most=64),
            out_channels=config.whole("out_channels", 4, most=64),
            channels=channels,
            down=down,
            mid=mid,
            up=up,
            groups=_groups(config, channels),
            eps=config.number("norm_eps", 1e-5, least=0, most=1),
            context_width=_context_width(config),
            time_width=config.whole("time_embedding_dim", 4 * channels[0]),
            flip=config.flag("flip_sin_to_cos", True),
            shift=_shift(config, channels),
            center_input_sample=config.flag("center_input_sample"),
            conv_in_kernel=_odd(config, "conv_in_kernel"),
            conv_out_kernel=_odd(config, "conv_out_kernel"),
            downsample_padding=_choice(config, "downsample_padding", 1, (0, 1)),
            linear_projection=config.flag("use_linear_projection"),
            scale_and_shift=_choice(config, "resnet_time_scale_shift", "default", ("default", "scale_shift"))
            == "scale_shift",
            mid_scale=config.number("mid_block_scale_factor", 1.0, least=1e-3, most=1e3),
            num_class_embeds=config.whole("num_class_embeds", 1) if config.get("num_class_embeds") else 0,
            guidance_width=config.whole("time_cond_proj_dim", 1) if config.get("time_cond_proj_dim") else 0,
            **_text_and_size(config),
        )


def _choice(config: Config, key: str, default: Any, choices: tuple[Any, ...]) -> Any:
    value = config.get(key, default)
    if isinstance(value, bool) or value not in choices:
        raise config.refused(key, " or ".join(repr(one) for one in choices))
    return value


def _odd(config: Config, key: str) -> int:
    kernel = config.whole(key, 3, most=31)
    if kernel % 2 == 0:
        raise config.refused(key, "an odd number")
    return kernel


def _shift(config: Config, channels: tuple[int, ...]) -> float:
    """The number that is subtracted from the number of frequencies. The result must be positive."""
    if channels[0] % 2:
        raise config.refused("block_out_channels", "an even number first, for as many sines as cosines")
    widths = [channels[0]]
    if config.get("addition_time_embed_dim"):
        widths.append(config.whole("addition_time_embed_dim", most=_MOST_CHANNELS))
    return config.number("freq_shift", 0, least=0, most=min(widths) / 2 - 0.5)


def _groups(config: Config, channels: tuple[int, ...]) -> int:
    groups = config.whole("norm_num_groups", 32, most=_MOST_CHANNELS)
    if any(each % groups for each in channels):
        raise config.refused("norm_num_groups", f"a divisor of each of {list(channels)}")
    return groups


def _context_width(config: Config) -> int:
    value = config.get("cross_attention_dim", 1280)
    if isinstance(value, (list, tuple)) and value and all(one == value[0] for one in value):
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_CHANNELS:
        raise config.refused("cross_attention_dim", "one whole number for all blocks")
    return value


def _text_and_size(config: Config) -> dict[str, int]:
    """The widths of SDXL's pooled texts and sizes, alone and together. Zeros without them.

    The config says only how wide both are together. With other widths than SDXL's, their shares are a guess.
    """
    if _choice(config, "addition_embed_type", None, (None, "text_time")) is None:
        return {"added_width": 0, "pooled_width": 0, "size_width": 0, "num_time_ids": 0}
    size = config.whole("addition_time_embed_dim", most=_MOST_CHANNELS)
    if size % 2:
        raise config.refused("addition_time_embed_dim", "an even number, for as many sines as cosines")
    whole = config.whole("projection_class_embeddings_input_dim", most=1 << 16)
    shares = [(whole - count * size, count) for count in _TIME_IDS if whole > count * size]
    if not shares:
        raise config.refused(
            "projection_class_embeddings_input_dim", "room for a pooled text and 5 or 6 sizes"
        )
    pooled, count = next((one for one in shares if one[0] == _POOLED_WIDTH), shares[0])
    return {"added_width": whole, "pooled_width": pooled, "size_width": size, "num_time_ids": count}


def _blocks(
    config: Config, channels: tuple[int, ...]
) -> tuple[tuple[BlockConfig, ...], BlockConfig | None, tuple[BlockConfig, ...]]:
    """The blocks on the way down, in the middle, and on the way up."""
    count = len(channels)
    attends = [
        _kinds(config, key, default, known, count)
        for key, default, known in (
            ("down_block_types", _DOWN_DEFAULT, _DOWN),
            ("up_block_types", _UP_DEFAULT, _UP),
        )
    ]
    layers = config.each("layers_per_block", 2, count, most=_MOST_LAYERS)
    heads = _heads(config, channels)
    cross = _only_cross_attention(config, count)
    depths, depths_up = _depths(config, layers)
    down = tuple(
        BlockConfig(
            channels=channels[i],
            heads=heads[i],
            depths=depths[i],
            attends=attends[0][i],
            only_cross_attention=cross[i],
            resamples=i < count - 1,
        )
        for i in range(count)
    )
    up = tuple(
        BlockConfig(
            channels=channels[count - 1 - i],
            heads=heads[count - 1 - i],
            depths=depths_up[i],
            attends=attends[1][i],
            only_cross_attention=cross[count - 1 - i],
            resamples=i < count - 1,
        )
        for i in range(count)
    )
    return down, _middle(config, channels, heads, depths), up


def _middle(
    config: Config, channels: tuple[int, ...], heads: tuple[int, ...], depths: tuple[tuple[int, ...], ...]
) -> BlockConfig | None:
    kind = config.raw("mid_block_type") if "mid_block_type" in config else _MIDDLE[0]
    if kind not in _MIDDLE:
        raise config.refused("mid_block_type", " or ".join(repr(one) for one in _MIDDLE))
    if kind is None:
        return None
    return BlockConfig(
        channels=channels[-1],
        heads=heads[-1],
        # A middle without attention has a single resnet.
        depths=(depths[-1][0],) if kind == _MIDDLE[0] else (),
        attends=kind == _MIDDLE[0],
        # diffusers passes `mid_block_only_cross_attention` only to another kind of block.
        only_cross_attention=False,
        resamples=False,
    )


def _kinds(
    config: Config, key: str, default: tuple[str, ...], known: Mapping[str, bool], count: int
) -> list[bool]:
    """Whether each block attends to the text."""
    kinds = config.texts(key, default)
    if len(kinds) != count or any(kind not in known for kind in kinds):
        raise config.refused(key, f"{count} of {' and '.join(known)}")
    return [known[kind] for kind in kinds]


def _heads(config: Config, channels: tuple[int, ...]) -> tuple[int, ...]:
    # Configs call the number of heads `attention_head_dim`.
    key = "num_attention_heads" if config.get("num_attention_heads") else "attention_head_dim"
    heads = config.each(key, 8, len(channels), most=1 << 10)
    if any(width % own for width, own in zip(channels, heads, strict=True)):
        raise config.refused(key, f"divisors of {list(channels)}")
    return heads


def _only_cross_attention(config: Config, count: int) -> list[bool]:
    value = config.get("only_cross_attention", False)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count or not all(isinstance(one, bool) for one in values):
        raise config.refused("only_cross_attention", f"true or false, once or for each of {count} blocks")
    return values


def _depths(
    config: Config, layers: tuple[int, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The layers of each transformer, on the way down and on the way up. Blocks there have one resnet more."""
    key, reverse = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
    given = config.get(key, 1)
    given = list(given) if isinstance(given, (list, tuple)) else [given] * len(layers)
    back = config.get(reverse)
    if back is None and any(isinstance(one, (list, tuple)) for one in given):
        raise config.refused(reverse, "a list, because transformer_layers_per_block is nested")
    upward = list(back) if isinstance(back, (list, tuple)) else list(reversed(given))
    down = _spread(config, key, given, layers)
    return down, _spread(config, reverse if back else key, upward, [n + 1 for n in reversed(layers)])


def _spread(config: Config, key: str, given: list[Any], counts: Any) -> tuple[tuple[int, ...], ...]:
    """A depth for each resnet of each block. A single number holds for a whole block."""
    if len(given) != len(counts):
        raise config.refused(key, f"one entry for each of {len(counts)} blocks")
    rows = []
    for entry, count in zip(given, counts, strict=True):
        row = list(entry) if isinstance(entry, (list, tuple)) else [entry] * count
        fits = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= _MOST_LAYERS for n in row)
        if len(row) != count or not fits:
            raise config.refused(key, f"{count} whole numbers from 0 to {_MOST_LAYERS} in each block")
        rows.append(tuple(row))
    return tuple(rows)
