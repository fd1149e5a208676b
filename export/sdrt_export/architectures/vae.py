"""The VAE of Stable Diffusion, `AutoencoderKL`: images to the moments of latents, and latents to images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt_export.architectures.config import Config
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Attention, Value

__all__ = ["EPS", "VaeConfig", "attention_of", "vae_decoder", "vae_encoder"]

EPS = 1e-6
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_KNOWN = frozenset(
    {
        *("in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels"),
        *("layers_per_block", "latent_channels", "norm_num_groups", "use_quant_conv", "use_post_quant_conv"),
        "mid_block_add_attention",
    }
)
_FIXED: Mapping[str, Any] = {"act_fn": ("silu", "swish")}
# The runtime reads those that scale the latents.
_IGNORED = frozenset(
    {"sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"}
)


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """The shape of a VAE. `quantised` are its 1x1 convolutions between the halves and the latents."""

    in_channels: int
    out_channels: int
    latent_channels: int
    channels: tuple[int, ...]
    layers: int
    groups: int
    attends: bool
    quantised: tuple[bool, bool]

    @classmethod
    def of(cls, values: Mapping[str, Any], component: str = "vae") -> VaeConfig:
        """Read diffusers' config. Raises `UnsupportedModelError` for unsupported values."""
        config = Config(component, values)
        config.check_keys(_KNOWN, _FIXED, _IGNORED, classes=("AutoencoderKL",))
        channels = config.wholes("block_out_channels", (64,), most=1 << 13)
        for key, kind in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            if config.texts(key, (kind,)) != (kind,) * len(channels):
                raise config.refused(key, f"{kind} for each of {len(channels)} blocks")
        groups = config.whole("norm_num_groups", 32, most=1 << 13)
        if any(each % groups for each in channels):
            raise config.refused("norm_num_groups", f"a divisor of each of {list(channels)}")
        return cls(
            in_channels=config.whole("in_channels", 3, most=16),
            out_channels=config.whole("out_channels", 3, most=16),
            latent_channels=config.whole("latent_channels", 4, most=256),
            channels=channels,
            layers=config.whole("layers_per_block", 1, most=16),
            groups=groups,
            attends=config.flag("mid_block_add_attention", True),
            quantised=(config.flag("use_quant_conv", True), config.flag("use_post_quant_conv", True)),
        )

    @property
    def factor(self) -> int:
        """How many pixels a latent has on each side."""
        return 1 << (len(self.channels) - 1)


def vae_encoder(config: VaeConfig, g: Layers) -> None:
    """Write the graph. Input: `sample` [batch, 3, height, width] in -1 to 1. Output: `latent_parameters`, moments."""
    x = g.conv("encoder.conv_in", g.image_input("sample", config.in_channels), config.channels[0])
    for index, channels in enumerate(config.channels):
        path = f"encoder.down_blocks.{index}"
        for layer in range(config.layers):
            x = _resnet(config, g, f"{path}.resnets.{layer}", x, channels)
        if index < len(config.channels) - 1:
            x = g.downsampled(f"{path}.downsamplers.0.conv", x, channels, padding=0)
    x = _last(config, g, "encoder", _middle(config, g, "encoder", x), 2 * config.latent_channels)
    if config.quantised[0]:
        x = g.conv("quant_conv", x, x.channels, kernel=1)
    g.image_output("latent_parameters", x, ("latent_height", "latent_width"))


def vae_decoder(config: VaeConfig, g: Layers) -> None:
    """Write the graph. Input: `latent_sample` [batch, latent, height, width]. Output: `sample`, an image in -1 to 1."""
    x = g.image_input("latent_sample", config.latent_channels)
    if config.quantised[1]:
        x = g.conv("post_quant_conv", x, x.channels, kernel=1)
    x = g.conv("decoder.conv_in", x, config.channels[-1])
    x = _middle(config, g, "decoder", x)
    for index, channels in enumerate(reversed(config.channels)):
        path = f"decoder.up_blocks.{index}"
        for layer in range(config.layers + 1):
            x = _resnet(config, g, f"{path}.resnets.{layer}", x, channels)
        if index < len(config.channels) - 1:
            x = g.conv(f"{path}.upsamplers.0.conv", g.enlarged(x), channels)
    g.image_output(
        "sample", _last(config, g, "decoder", x, config.out_channels), ("image_height", "image_width")
    )


def attention_of(config: VaeConfig, half: str) -> Attention:
    """The attention in the middle of `encoder` or `decoder`, with one head over all pixels."""
    return Attention(f"{half}.mid_block.attentions.0", heads=1, width=config.channels[-1], bias=True)


def _resnet(config: VaeConfig, g: Layers, path: str, x: Value, out: int) -> Value:
    h = g.conv(f"{path}.conv1", g.group_norm(f"{path}.norm1", x, config.groups, EPS, silu=True), out)
    h = g.conv(f"{path}.conv2", g.group_norm(f"{path}.norm2", h, config.groups, EPS, silu=True), out)
    return g.add(h, x if x.channels == out else g.conv(f"{path}.conv_shortcut", x, out, kernel=1))


def _middle(config: VaeConfig, g: Layers, half: str, x: Value) -> Value:
    x = _resnet(config, g, f"{half}.mid_block.resnets.0", x, x.channels)
    if config.attends:
        attention = attention_of(config, half)
        normed = g.group_norm(f"{attention.path}.group_norm", x, config.groups, EPS)
        x = g.add(g.image(g.attention(attention, g.tokens(normed)), x), x)
    return _resnet(config, g, f"{half}.mid_block.resnets.1", x, x.channels)


def _last(config: VaeConfig, g: Layers, half: str, x: Value, out: int) -> Value:
    normed = g.group_norm(f"{half}.conv_norm_out", x, config.groups, EPS, silu=True)
    return g.conv(f"{half}.conv_out", normed, out)
