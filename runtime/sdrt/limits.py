"""What a model's configs say about the requests that it can serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdrt.errors import IntegrityError, UnsupportedModelError
from sdrt.wording import brief

if TYPE_CHECKING:
    from sdrt.model import ModelFolder

__all__ = ["Limits", "whole"]

# Beyond any model there is; a damaged config must not ask for the memory.
_MOST = 2**16
_MOST_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a model's configs say about the tensors it takes."""

    latent_channels: int
    cross_attention_dim: int
    vae_scale_factor: int
    default_height: int
    default_width: int
    size_step: int
    has_text_encoder: bool = True

    @classmethod
    def of(cls, model: ModelFolder) -> Limits:
        """Read them from `unet/config.json` and `vae_decoder/config.json`."""
        unet, vae = model.component_config("unet"), model.component_config("vae_decoder")
        channels = whole(unet, "in_channels", "unet")
        for owner, config, key in (("unet", unet, "out_channels"), ("vae_decoder", vae, "latent_channels")):
            if whole(config, key, owner) != channels:
                raise UnsupportedModelError(
                    f"unet takes {channels} channels and {owner} has {key} {config[key]}: only text-to-image "
                    "models, where they are equal, are supported"
                )
        factor = 2 ** (len(_list(vae, "block_out_channels", "vae_decoder")) - 1)
        height, width = _sample_size(unet)
        # A traced graph (no sdrt.json) has the factor 2 of every upsampling baked in; ours takes any size.
        levels = len(_list(unet, "block_out_channels", "unet")) - 1
        return cls(
            latent_channels=channels,
            cross_attention_dim=whole(unet, "cross_attention_dim", "unet"),
            vae_scale_factor=factor,
            default_height=height * factor,
            default_width=width * factor,
            size_step=factor
            if model.manifest and model.manifest.exporter != "optimum"
            else factor * 2**levels,
            has_text_encoder=model.has("text_encoder"),
        )


def whole(config: dict[str, Any], key: str, owner: str) -> int:
    """`config[key]` of the component `owner`, a count. Raises `IntegrityError`."""
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= _MOST:
        raise IntegrityError(
            f"{owner}/config.json: {key} is {brief(value)}, expected a whole number from 1 to {_MOST}"
        )
    return value


def _list(config: dict[str, Any], key: str, owner: str) -> list[Any]:
    value = config.get(key)
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_LEVELS:
        raise IntegrityError(
            f"{owner}/config.json: {key} is {brief(value)}, expected a list of 1 to {_MOST_LEVELS}"
        )
    return value


def _sample_size(unet: dict[str, Any]) -> tuple[int, int]:
    """Latent height and width of `sample_size`, a number or a pair."""
    size = unet.get("sample_size")
    if not isinstance(size, list) or len(size) != 2:
        size = [size, size]
    height, width = (whole({"sample_size": side}, "sample_size", "unet") for side in size)
    return height, width
