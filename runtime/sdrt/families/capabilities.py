"""What a model can serve, read from its configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import IntegrityError
from sdrt.families.unet_tasks import TEXT_TO_IMAGE, Kind, kind_of

__all__ = ["Capabilities", "whole"]

# Beyond any model there is; a damaged config must not ask for the memory.
_MOST = 2**16
_MOST_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a model's configs say about the tensors it takes."""

    latent_channels: int
    cross_attention_dim: int
    vae_scale_factor: int
    default_height: int
    default_width: int
    size_step: int
    has_text_encoder: bool = True
    has_vae_encoder: bool = True
    kind: Kind = TEXT_TO_IMAGE
    guidance_scale: float = TEXT_TO_IMAGE.guidance_scale
    """Where a call names none."""
    most_noise: int = 0
    """Of an upscaling model, the noisiest that it was trained with."""

    @classmethod
    def of(
        cls,
        unet: Mapping[str, Any],
        vae: Mapping[str, Any],
        *,
        index: Mapping[str, Any],
        defaults: Mapping[str, Any],
        any_size: bool,
        has_text_encoder: bool,
        has_vae_encoder: bool,
    ) -> Capabilities:
        """Read `unet/config.json`, `vae_decoder/config.json`, `model_index.json` and the manifest's defaults.

        `any_size` is false for a graph whose upsampling was traced at a fixed factor of 2: it takes multiples of what
        the U-Net halves its latents to.

        Raises:
            IntegrityError: a value is missing or out of bounds.
            UnsupportedModelError: the U-Net is made for no task that sdrt knows.
        """
        channels = whole(vae, "latent_channels", "vae_decoder")
        for key in ("in_channels", "out_channels"):
            whole(unet, key, "unet")
        kind = kind_of(unet, channels)
        factor = 2 ** (len(_list(vae, "block_out_channels", "vae_decoder")) - 1)
        height, width = _sample_size(unet)
        levels = len(_list(unet, "block_out_channels", "unet")) - 1
        return cls(
            latent_channels=channels,
            cross_attention_dim=whole(unet, "cross_attention_dim", "unet"),
            vae_scale_factor=factor,
            default_height=height * factor,
            default_width=width * factor,
            size_step=factor if any_size else factor * 2**levels,
            has_text_encoder=has_text_encoder,
            has_vae_encoder=has_vae_encoder,
            kind=kind,
            guidance_scale=float(defaults.get("guidance_scale", kind.guidance_scale)),
            most_noise=_most_noise(index, unet) if kind.has_noise_level else 0,
        )


def _most_noise(index: Mapping[str, Any], unet: Mapping[str, Any]) -> int:
    """The index says it, 350 where it does not as in diffusers; never more than there are labels."""
    labels = whole(unet, "num_class_embeds", "unet")
    most = index.get("max_noise_level", 350)
    if type(most) is not int or most < 0:
        raise IntegrityError(
            f"model_index.json: max_noise_level is {brief(most)}, expected a whole number from 0"
        )
    return min(most, labels - 1)


def whole(config: Mapping[str, Any], key: str, owner: str) -> int:
    """`config[key]` of the component `owner`, a count. Raises `IntegrityError`."""
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= _MOST:
        raise IntegrityError(
            f"{owner}/config.json: {key} is {brief(value)}, expected a whole number from 1 to {_MOST}"
        )
    return value


def _list(config: Mapping[str, Any], key: str, owner: str) -> list[Any]:
    value = config.get(key)
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_LEVELS:
        raise IntegrityError(
            f"{owner}/config.json: {key} is {brief(value)}, expected a list of 1 to {_MOST_LEVELS}"
        )
    return value


def _sample_size(unet: Mapping[str, Any]) -> tuple[int, int]:
    """Latent height and width of `sample_size`, a number or a pair."""
    size = unet.get("sample_size")
    if not isinstance(size, list) or len(size) != 2:
        size = [size, size]
    height, width = (whole({"sample_size": side}, "sample_size", "unet") for side in size)
    return height, width
