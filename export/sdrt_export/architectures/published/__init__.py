"""Published architectures, as the configs of their components.

Each row has the configs of an architecture's parts, by folder of a checkpoint. Its `model_index` names the pipeline
class if that is not Stable Diffusion's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.families import Family, family_of
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt_export.architectures.published import schedulers, text_encoders, unets, vaes

__all__ = ["ARCHITECTURES", "PUBLISHED", "Architecture"]

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One published architecture: its title, and its configs by part."""

    title: str
    configs: Mapping[str, Config]

    @property
    def family(self) -> Family:
        """The family whose pipeline class `model_index` names. Without one, Stable Diffusion."""
        return family_of(self.configs.get("model_index", {})) or STABLE_DIFFUSION


def _sd(
    title: str,
    unet: Config,
    *,
    text: Config = text_encoders.CLIP_L,
    vae: Config = vaes.SD,
    scheduler: Config = schedulers.PNDM,
    **more: Config,
) -> Architecture:
    """Stable Diffusion 1 or 2, or a model made from one."""
    configs = {"text_encoder": text, "unet": unet, "vae": vae, "scheduler": scheduler}
    return Architecture(title=title, configs=configs | more)


def _sd2(title: str, unet: Config, scheduler: Config = schedulers.PNDM) -> Architecture:
    return _sd(title, unet, text=text_encoders.CLIP_H, scheduler=scheduler)


def _xl(
    title: str,
    unet: Config = unets.SDXL,
    *,
    scheduler: Config = schedulers.EULER,
    pipeline: str = "StableDiffusionXLPipeline",
    texts: tuple[Config, Config] = (text_encoders.CLIP_L, text_encoders.CLIP_G),
    vae: Config = vaes.SDXL,
) -> Architecture:
    """SDXL, or a model made from it."""
    first, second = texts
    parts = {"text_encoder": first, "text_encoder_2": second, "unet": unet, "vae": vae}
    # The text encoder distinguishes it from the refiner.
    index = {
        "_class_name": pipeline,
        "text_encoder": ["transformers", "CLIPTextModel"],
        "force_zeros_for_empty_prompt": True,
    }
    return Architecture(title=title, configs=parts | {"scheduler": scheduler, "model_index": index})


def _refiner() -> Architecture:
    configs = {
        "text_encoder_2": text_encoders.CLIP_G,
        "unet": unets.SDXL_REFINER,
        "vae": vaes.SDXL,
        "scheduler": schedulers.EULER,
        "model_index": {
            "_class_name": "StableDiffusionXLImg2ImgPipeline",
            "force_zeros_for_empty_prompt": False,
            "requires_aesthetics_score": True,
        },
    }
    return Architecture(title="SDXL's refiner 1.0", configs=configs)


_EMBEDS_GUIDANCE = {"time_cond_proj_dim": 256}
_INPAINTS, _SEES_IMAGE = {"in_channels": 9}, {"in_channels": 8}

PUBLISHED: Mapping[str, Architecture] = {
    "sd15": _sd("Stable Diffusion 1.5, and 1.1 to 1.4", unets.SD1),
    "sd15-inpainting": _sd("Stable Diffusion 1.5 for inpainting", {**unets.SD1, **_INPAINTS}),
    "instruct-pix2pix": _sd("InstructPix2Pix", {**unets.SD1, **_SEES_IMAGE}),
    "sd21": _sd2("Stable Diffusion 2.0 and 2.1 for 512x512", unets.SD2),
    "sd21-v": _sd2(
        "Stable Diffusion 2.0 and 2.1 for 768x768, v prediction",
        {**unets.SD2, "sample_size": 96},
        schedulers.DDIM_V,
    ),
    "sd2-inpainting": _sd2("Stable Diffusion 2.0 for inpainting", {**unets.SD2, **_INPAINTS}),
    "x4-upscaler": _sd(
        "Stable Diffusion's x4 upscaler",
        unets.X4_UPSCALER,
        text=text_encoders.CLIP_H,
        vae=vaes.X4_UPSCALER,
        scheduler=schedulers.UPSCALER,
        low_res_scheduler=schedulers.UPSCALER_LOW_RES,
    ),
    "sd-turbo": _sd2("SD-Turbo", unets.SD2, schedulers.EULER_TRAILING),
    "lcm": _sd(
        "LCM Dreamshaper v7, a latent consistency model",
        {**unets.SD1, **_EMBEDS_GUIDANCE},
        scheduler=schedulers.LCM,
        model_index={"_class_name": "LatentConsistencyModelPipeline"},
    ),
    "bk-sdm-base": _sd("BK-SDM Base", unets.BK_SDM_BASE),
    "bk-sdm-small": _sd("BK-SDM Small", unets.BK_SDM_SMALL),
    "bk-sdm-tiny": _sd("BK-SDM Tiny", unets.BK_SDM_TINY),
    "tiny-sd": _sd("Segmind Tiny-SD", unets.BK_SDM_TINY),
    "sdxl": _xl("SDXL 1.0"),
    "sdxl-inpainting": _xl(
        "SDXL 1.0 for inpainting",
        {**unets.SDXL, **_INPAINTS},
        pipeline="StableDiffusionXLInpaintPipeline",
    ),
    "sdxl-refiner": _refiner(),
    "sdxl-turbo": _xl("SDXL-Turbo", {**unets.SDXL, "sample_size": 64}, scheduler=schedulers.EULER_A_TRAILING),
    "lcm-sdxl": _xl("LCM-SDXL", {**unets.SDXL, **_EMBEDS_GUIDANCE}, scheduler=schedulers.LCM),
    "ssd-1b": _xl("Segmind SSD-1B", unets.SSD_1B),
    "segmind-vega": _xl("Segmind Vega", unets.SEGMIND_VEGA),
    "tiny": _sd(
        "Stable Diffusion 1.5's blocks with few channels, for tests",
        unets.TINY,
        text=text_encoders.TINY,
        vae=vaes.TINY,
    ),
    "tiny-xl": _xl(
        "SDXL's blocks with few channels, for tests",
        unets.TINY_XL,
        texts=(text_encoders.TINY, text_encoders.TINY_G),
        vae=vaes.TINY_XL,
    ),
}
"""The architectures by name, grouped by family."""

ARCHITECTURES: Mapping[str, Mapping[str, Config]] = {name: row.configs for name, row in PUBLISHED.items()}
"""The configs of the architectures, by name."""
