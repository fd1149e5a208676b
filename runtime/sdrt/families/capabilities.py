"""What a model can serve, read from its configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import IntegrityError
from sdrt.families.family import Family, Task
from sdrt.families.stable_diffusion import TEXT_TO_IMAGE

__all__ = ["Capabilities", "whole"]

# Beyond any model there is; a damaged config must not ask for the memory.
_MOST = 2**16
_MOST_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a model can serve.

    Attributes:
        latent_channels: channels of the latents.
        embeds_width: the width of text embeddings.
        vae_scale_factor: pixels per latent, on each side.
        default_height, default_width: in pixels.
        size_step: what sides must be a multiple of, in pixels.
        has_text_encoder: whether the folder has every text encoder.
        has_vae_encoder: whether it has the VAE's encoder.
        takes_pooled: whether the denoiser is given pooled embeddings.
        task: what its denoiser was trained for.
        guidance_scale: of a call that names none.
        max_noise_level: the noisiest small image that an upscaling model was trained with.
    """

    latent_channels: int
    embeds_width: int
    vae_scale_factor: int
    default_height: int
    default_width: int
    size_step: int
    has_text_encoder: bool = True
    has_vae_encoder: bool = True
    takes_pooled: bool = False
    task: Task = TEXT_TO_IMAGE
    guidance_scale: float = TEXT_TO_IMAGE.guidance_scale
    max_noise_level: int = 0

    @classmethod
    def of(
        cls,
        family: Family,
        *,
        denoiser: Mapping[str, Any],
        vae: Mapping[str, Any],
        index: Mapping[str, Any],
        defaults: Mapping[str, Any],
        any_size: bool,
        has_text_encoder: bool,
        has_vae_encoder: bool,
    ) -> Capabilities:
        """Read the configs of the denoiser and of the VAE's decoder, `model_index.json` and the manifest's defaults.

        `any_size` is false for a graph whose upsampling was traced at a fixed factor of 2: it takes multiples of what
        the denoiser halves its latents to.

        Raises:
            IntegrityError: a value is missing or out of bounds.
            UnsupportedModelError: the denoiser is made for no task of the family.
        """
        spec, decoder = family.denoiser, family.vae.decoder
        channels = whole(vae, "latent_channels", decoder)
        for key in ("in_channels", "out_channels"):
            whole(denoiser, key, spec.component)
        task = family.task_of(denoiser, channels)
        factor = 2 ** (len(_list(vae, "block_out_channels", decoder)) - 1)
        height, width = _default_size(family, denoiser, factor)
        levels = 1 if spec.levels is None else len(_list(denoiser, spec.levels, spec.component))
        return cls(
            latent_channels=channels,
            embeds_width=whole(denoiser, spec.embeds_width, spec.component),
            vae_scale_factor=factor,
            default_height=height,
            default_width=width,
            size_step=factor if any_size else factor * 2 ** (levels - 1),
            has_text_encoder=has_text_encoder,
            has_vae_encoder=has_vae_encoder,
            takes_pooled=family.takes_pooled,
            task=task,
            guidance_scale=float(defaults.get("guidance_scale", task.guidance_scale)),
            max_noise_level=_max_noise_level(index, denoiser, spec.component) if task.has_noise_level else 0,
        )


def _max_noise_level(index: Mapping[str, Any], denoiser: Mapping[str, Any], owner: str) -> int:
    """The index says it, 350 where it does not as in diffusers; never more than there are labels."""
    labels = whole(denoiser, "num_class_embeds", owner)
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


def _default_size(family: Family, denoiser: Mapping[str, Any], factor: int) -> tuple[int, int]:
    """Height and width in pixels: of `sample_size`, a number of latents or a pair of them, or the family's."""
    size = denoiser.get("sample_size")
    if size is None and family.default_size is not None:
        return family.default_size, family.default_size
    if not isinstance(size, list) or len(size) != 2:
        size = [size, size]
    owner = family.denoiser.component
    height, width = (whole({"sample_size": side}, "sample_size", owner) for side in size)
    return height * factor, width * factor
