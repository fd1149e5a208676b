"""TAESD's decoder, a small network that imitates the VAE's, for previews (https://github.com/madebyollin/taesd)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt_export.architectures.config import Config
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Value

__all__ = ["TaesdConfig", "taesd_decoder", "taesd_encoder_shapes"]

_KNOWN = frozenset(
    {
        *("out_channels", "decoder_block_out_channels", "block_out_channels", "latent_channels"),
        "num_decoder_blocks",
    }
)
_FIXED: Mapping[str, Any] = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2}
# Keys of the encoder, and of diffusers' scaling of latents to images. Previews use neither.
_IGNORED = frozenset(
    {
        *(
            "in_channels",
            "encoder_block_out_channels",
            "num_encoder_blocks",
            "latent_magnitude",
            "latent_shift",
        ),
        *("force_upcast", "scaling_factor", "shift_factor"),
    }
)
_MAGNITUDE = 3.0


@dataclass(frozen=True, kw_only=True)
class TaesdConfig:
    """The shape of a decoder."""

    latent_channels: int
    out_channels: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any], component: str = "taesd") -> TaesdConfig:
        """Read diffusers' config of an `AutoencoderTiny`. Raises `UnsupportedModelError`."""
        config = Config(component, values)
        config.check_keys(_KNOWN, _FIXED, _IGNORED, classes=("AutoencoderTiny",))
        channels = config.wholes("decoder_block_out_channels", (64,) * 4, most=1 << 12)
        return cls(
            latent_channels=config.whole("latent_channels", 4, most=256),
            out_channels=config.whole("out_channels", 3, most=16),
            channels=channels,
            blocks=config.each("num_decoder_blocks", 3, len(channels), least=0, most=64),
        )

    @property
    def factor(self) -> int:
        """How many pixels a latent has on each side."""
        return 1 << (len(self.channels) - 1)


def taesd_encoder_shapes(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the encoder's tensors, which no graph uses, by diffusers' names."""
    config = Config("taesd", values)
    channels = config.wholes("encoder_block_out_channels", (64,) * 4, most=1 << 12)
    blocks = config.each("num_encoder_blocks", 3, len(channels), least=0, most=64)
    before, number = config.whole("in_channels", 3, most=16), 0
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(path: str, before: int, out: int, *, bias: bool = True) -> None:
        shapes[f"encoder.layers.{path}.weight"] = (out, before, 3, 3)
        if bias:
            shapes[f"encoder.layers.{path}.bias"] = (out,)

    for index, (out, count) in enumerate(zip(channels, blocks, strict=True)):
        conv(f"{number}", before, out, bias=index == 0)
        for block in range(number + 1, number + 1 + count):
            for layer in (0, 2, 4):
                conv(f"{block}.conv.{layer}", out, out)
        before, number = out, number + 1 + count
    conv(f"{number}", before, config.whole("latent_channels", 4, most=256))
    return shapes


def taesd_decoder(config: TaesdConfig, g: Layers) -> None:
    """Write the graph. Input: `latent_sample` [batch, latent, height, width]. Output: `sample`, an image in -1 to 1."""
    x = g.image_input("latent_sample", config.latent_channels)
    x = g.multiply(g.tanh(g.multiply(x, 1 / _MAGNITUDE)), _MAGNITUDE)
    x = g.relu(g.conv("decoder.layers.0", x, config.channels[0]))
    number, last = 2, len(config.channels) - 1
    for index, (channels, blocks) in enumerate(zip(config.channels, config.blocks, strict=True)):
        for _ in range(blocks):
            x = _block(g, f"decoder.layers.{number}", x, channels)
            number += 1
        if index < last:
            x = g.enlarged(x)
            number += 1
        out = config.out_channels if index == last else channels
        x = g.conv(f"decoder.layers.{number}", x, out, bias=index == last)
        number += 1
    g.image_output("sample", g.shifted(g.multiply(x, 2.0), -1.0), ("image_height", "image_width"))


def _block(g: Layers, path: str, x: Value, out: int) -> Value:
    h = g.relu(g.conv(f"{path}.conv.0", x, out))
    h = g.relu(g.conv(f"{path}.conv.2", h, out))
    h = g.conv(f"{path}.conv.4", h, out)
    skip = x if x.channels == out else g.conv(f"{path}.skip", x, out, kernel=1, bias=False)
    return g.relu(g.add(h, skip))
