"""Stable Diffusion 1 and 2, including the models for inpainting, instructions and upscaling."""

from __future__ import annotations

from sdrt.families import scaling_factors
from sdrt.families.family import Family
from sdrt.families.specs import IndexEntry, Task

__all__ = ["STABLE_DIFFUSION", "TEXT_TO_IMAGE"]

_CONSISTENCY = frozenset({"LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"})
_EXPORTED_CONSISTENCY = frozenset(
    {"ORTLatentConsistencyModelPipeline", "ORTLatentConsistencyModelImg2ImgPipeline"}
)
_REPAINTING = ("strength", "denoising_start", "mask_image", "padding_mask_crop", "outpaint")

TEXT_TO_IMAGE = Task(
    name="text to image",
    pipeline="StableDiffusionPipeline",
    refuses=("image_guidance_scale", "noise_level"),
    old_sample_size=64,
)
_TASKS = (
    TEXT_TO_IMAGE,
    Task(
        name="inpainting",
        pipeline="StableDiffusionInpaintPipeline",
        sees_latents=True,
        planes=1,
        needs=("image", "mask_image"),
        refuses=("image_guidance_scale", "noise_level"),
        old_sample_size=64,
    ),
    Task(
        name="instructions",
        pipeline="StableDiffusionInstructPix2PixPipeline",
        sees_latents=True,
        has_image_guidance=True,
        needs=("image",),
        refuses=(*_REPAINTING, "noise_level", "hires_scale"),
    ),
    Task(
        name="upscaling",
        pipeline="StableDiffusionUpscalePipeline",
        planes=3,
        has_noise_level=True,
        guidance_scale=9.0,
        needs=("image",),
        refuses=(*_REPAINTING, "image_guidance_scale", "hires_scale"),
        scaling_factor=scaling_factors.X4_UPSCALER,
    ),
)

STABLE_DIFFUSION = Family(
    name="stable-diffusion",
    title="Stable Diffusion 1 or 2",
    pipelines=frozenset(
        {"OnnxStableDiffusionPipeline", "StableDiffusionOnnxPipeline", "ORTStableDiffusionPipeline"}
        | {"OnnxStableDiffusionImg2ImgPipeline", "OnnxStableDiffusionUpscalePipeline"}
        | {"StableDiffusionInpaintPipelineLegacy", "OnnxStableDiffusionInpaintPipeline"}
        | {"OnnxStableDiffusionInpaintPipelineLegacy"}
        | {"ORTStableDiffusionImg2ImgPipeline", "ORTStableDiffusionInpaintPipeline"}
        | _EXPORTED_CONSISTENCY
    ),
    checkpoint_pipelines=frozenset({"StableDiffusionImg2ImgPipeline"}) | _CONSISTENCY,
    consistency_pipelines=_CONSISTENCY | _EXPORTED_CONSISTENCY,
    index={
        "text_encoder": IndexEntry(
            library="transformers",
            classes=frozenset({"CLIPTextModel"}),
            exported=frozenset({"OnnxRuntimeModel", "ORTTextEncoder", "ORTModelTextEncoder"}),
        ),
        "tokenizer": IndexEntry(
            library="transformers", classes=frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})
        ),
        "unet": IndexEntry(
            library="diffusers",
            classes=frozenset({"UNet2DConditionModel"}),
            exported=frozenset({"OnnxRuntimeModel", "ORTUnet", "ORTModelUnet"}),
        ),
        "vae": IndexEntry(
            library="diffusers",
            classes=frozenset({"AutoencoderKL"}),
            exported=frozenset({"ORTVae", "ORTWrapperVae"}),
        ),
        "vae_decoder": IndexEntry(
            library="diffusers",
            classes=frozenset({"AutoencoderKL"}),
            exported=frozenset({"OnnxRuntimeModel", "ORTVaeDecoder", "ORTModelVaeDecoder"}),
            required=False,
        ),
        "vae_encoder": IndexEntry(
            library="diffusers",
            classes=frozenset({"AutoencoderKL"}),
            exported=frozenset({"OnnxRuntimeModel", "ORTVaeEncoder", "ORTModelVaeEncoder"}),
            required=False,
        ),
        "scheduler": None,
        "low_res_scheduler": None,
    },
    ignored=frozenset({"safety_checker", "feature_extractor", "image_encoder", "watermarker"}),
    absent={
        **dict.fromkeys(("feature_extractor", "image_encoder", "safety_checker"), (None, None)),
        "requires_safety_checker": False,
    },
    tasks=_TASKS,
    unsupported={1: "Stable Diffusion 2 with depth"},
    checks_images=True,
    default_size=512,
)
