"""The kinds of Stable Diffusion U-Nets, told apart by what they see beside the latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.errors import UnsupportedModelError

__all__ = ["KINDS", "TEXT_TO_IMAGE", "Kind", "kind_of"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind.

    Attributes:
        name: what messages call it.
        pipeline: diffusers' class for it.
        sees_latents: whether the U-Net sees latents of a picture beside those that it denoises.
        planes: how many other channels it sees: a mask, or a small picture's colours.
        has_noise_level: whether it is told how noisy that small picture is.
        guidance_scale: diffusers' default.
        has_image_guidance: whether the picture has a guidance of its own.
        needs: the arguments that a call must have.
        refuses: the arguments that mean nothing to it.
    """

    name: str
    pipeline: str
    sees_latents: bool = False
    planes: int = 0
    has_noise_level: bool = False
    guidance_scale: float = 7.5
    has_image_guidance: bool = False
    needs: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()

    def in_channels(self, latent_channels: int) -> int:
        """Channels that a U-Net of this kind takes."""
        return latent_channels * (2 if self.sees_latents else 1) + self.planes


_REPAINTING = ("strength", "mask_image", "padding_mask_crop", "outpaint")

TEXT_TO_IMAGE = Kind(
    name="text to image",
    pipeline="StableDiffusionPipeline",
    refuses=("image_guidance_scale", "noise_level"),
)
KINDS = (
    TEXT_TO_IMAGE,
    Kind(
        name="inpainting",
        pipeline="StableDiffusionInpaintPipeline",
        sees_latents=True,
        planes=1,
        needs=("image", "mask_image"),
        refuses=("image_guidance_scale", "noise_level"),
    ),
    Kind(
        name="instructions",
        pipeline="StableDiffusionInstructPix2PixPipeline",
        sees_latents=True,
        has_image_guidance=True,
        needs=("image",),
        refuses=(*_REPAINTING, "noise_level", "hires_scale"),
    ),
    Kind(
        name="upscaling",
        pipeline="StableDiffusionUpscalePipeline",
        planes=3,
        has_noise_level=True,
        guidance_scale=9.0,
        needs=("image",),
        refuses=(*_REPAINTING, "image_guidance_scale", "hires_scale"),
    ),
)


def kind_of(unet: Mapping[str, Any], latent_channels: int) -> Kind:
    """The kind of a U-Net, from its config. Raises `UnsupportedModelError` for one that is of none."""
    seen, made, labels = unet.get("in_channels"), unet.get("out_channels"), unet.get("num_class_embeds")
    if made == latent_channels:
        for kind in KINDS:
            if seen == kind.in_channels(latent_channels) and kind.has_noise_level == bool(labels):
                return kind
    expected = ", ".join(f"{kind.in_channels(latent_channels)} ({kind.name})" for kind in KINDS)
    raise UnsupportedModelError(
        f"unet takes {seen} channels, {'with' if labels else 'without'} class labels, and gives {made}, of latents "
        f"with {latent_channels}: expected to take {expected}, of them the last with class labels"
    )
