"""The config of a ControlNet: diffusers' keys, checked one by one, as the half of a U-Net and what is beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.config import Config
from sdrt_export.architectures.unet_config import UNetConfig

__all__ = ["ControlNetConfig", "residual_channels"]

_UP = {"DownBlock2D": "UpBlock2D", "CrossAttnDownBlock2D": "CrossAttnUpBlock2D"}
# The keys that mean the same as in a U-Net. `UNetConfig` reads and checks them.
_OF_UNET = frozenset(
    {
        *("in_channels", "flip_sin_to_cos", "freq_shift", "down_block_types", "mid_block_type"),
        *("only_cross_attention", "block_out_channels", "layers_per_block", "downsample_padding"),
        *("mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps", "cross_attention_dim"),
        *("transformer_layers_per_block", "attention_head_dim", "num_attention_heads"),
        *("use_linear_projection", "class_embed_type", "addition_embed_type", "addition_time_embed_dim"),
        *("num_class_embeds", "resnet_time_scale_shift", "projection_class_embeddings_input_dim"),
        *("encoder_hid_dim", "encoder_hid_dim_type"),
    }
)
_OWN = frozenset(
    {
        *("conditioning_channels", "conditioning_embedding_out_channels"),
        *("controlnet_conditioning_channel_order", "global_pool_conditions"),
    }
)
_IGNORED = frozenset({"upcast_attention", "addition_embed_type_num_heads"})
_EMBEDDING = (16, 32, 96, 256)
_ORDERS = ("rgb", "bgr")
# Other networks that guide a U-Net, by their classes in diffusers, and by keys that only their configs have.
_OTHERS: Mapping[str, str] = {
    "ControlNetUnionModel": "a ControlNet-Union",
    "ControlNetXSAdapter": "a ControlNet-XS",
    "UNetControlNetXSModel": "a U-Net with a ControlNet-XS",
    "SparseControlNetModel": "a SparseCtrl",
    "MultiAdapter": "several T2I-Adapters",
}
_OTHER_KEYS: Mapping[str, str] = {
    **dict.fromkeys(("num_control_type", "num_trans_channel", "num_trans_layer"), "ControlNetUnionModel"),
    **dict.fromkeys(
        ("time_embedding_mix", "learn_time_embedding", "base_model_channel_sizes"), "ControlNetXSAdapter"
    ),
    **dict.fromkeys(
        ("motion_num_attention_heads", "use_simplified_condition_embedding"), "SparseControlNetModel"
    ),
}


@dataclass(frozen=True, kw_only=True)
class ControlNetConfig:
    """The shape of a ControlNet.

    Attributes:
        unet: the half of a U-Net that it is a copy of: its first convolution, the blocks on the way down, the middle.
        conditioning_channels: the channels of the control image.
        embedding: the channels of the network that shrinks the control image. It halves the image between two of them.
        reverses_channels: whether it was trained on control images in the order blue, green, red.
        pools: whether only the mean over all pixels guides the U-Net.
    """

    unet: UNetConfig
    conditioning_channels: int
    embedding: tuple[int, ...]
    reverses_channels: bool
    pools: bool

    @classmethod
    def of(cls, values: Mapping[str, Any], component: str = "controlnet") -> ControlNetConfig:
        """Read diffusers' config. Raises `UnsupportedModelError` for another network, and for unsupported values."""
        _refuse_others(values, component)
        config = Config(component, values, remedy="")
        config.check_keys(_OF_UNET | _OWN, {}, _IGNORED, classes=("ControlNetModel",))
        order = config.get("controlnet_conditioning_channel_order", "rgb")
        if order not in _ORDERS:
            raise config.refused("controlnet_conditioning_channel_order", " or ".join(map(repr, _ORDERS)))
        return cls(
            unet=_half(config, values),
            conditioning_channels=config.whole("conditioning_channels", 3, most=64),
            embedding=config.wholes("conditioning_embedding_out_channels", _EMBEDDING, most=1 << 14),
            reverses_channels=order == "bgr",
            pools=config.flag("global_pool_conditions"),
        )

    @property
    def factor(self) -> int:
        """How many pixels of the control image make one latent, in each direction."""
        return 1 << (len(self.embedding) - 1)

    @property
    def residuals(self) -> list[int]:
        """The channels of each output for the blocks on the way down, in diffusers' order."""
        return residual_channels(self.unet)


def residual_channels(unet: UNetConfig) -> list[int]:
    """The channels of each value that a U-Net's way down passes to its way up, in diffusers' order."""
    channels = [unet.channels[0]]
    for block in unet.down:
        channels += [block.channels] * (len(block.depths) + block.resamples)
    return channels


def _half(config: Config, values: Mapping[str, Any]) -> UNetConfig:
    """The half of the U-Net. The half that is not there mirrors it."""
    if "mid_block_type" in values and values["mid_block_type"] is None:
        raise config.refused("mid_block_type", "a block: a ControlNet has a middle")
    kinds = config.texts("down_block_types", UNetConfig.DOWN_BLOCKS)
    # diffusers' class has one number of layers for all blocks.
    layers = config.whole("layers_per_block", 2, most=64)
    own = {key: value for key, value in values.items() if key in _OF_UNET}
    own |= {
        "layers_per_block": layers,
        "up_block_types": [_UP.get(kind, kind) for kind in reversed(kinds)],
        "reverse_transformer_layers_per_block": [1] * len(kinds),
    }
    return UNetConfig.of(own, config.component, remedy="")


def _refuse_others(values: Mapping[str, Any], component: str) -> None:
    """Refuse other networks that guide a U-Net, by name."""
    named = values.get("_class_name")
    keys = [_OTHER_KEYS[key] for key, value in values.items() if key in _OTHER_KEYS and value is not None]
    found = named if isinstance(named, str) and named != "ControlNetModel" else next(iter(keys), None)
    if found is not None and found in _OTHERS:
        raise UnsupportedModelError.expected(
            f"{component}/config.json: the network is {_OTHERS[found]} ({found}), which sdrt cannot run",
            "a ControlNet (ControlNetModel)",
            component=component,
        )
