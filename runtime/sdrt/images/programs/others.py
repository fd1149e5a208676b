"""Easy Diffusion, Draw Things, and Civitai's own generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from sdrt.images.programs.made import Fields, Made, Size, load_object
from sdrt.images.programs.names import sampler_label

__all__ = ["read_civitai", "read_draw_things", "read_easy_diffusion"]

_EASY = "use_stable_diffusion_model"
_EASY_HARMLESS = (
    *("sampler_name", "stream_image_progress", "show_only_filtered_image", "output_format", "output_quality"),
    *("metadata_output_format", "vram_usage_level", "original_prompt", "active_tags", "inactive_tags"),
    *("used_random_seed", "num_outputs", "request_id", "session_id", "save_to_disk_path", "block_nsfw"),
    *("output_lossless", "block_bad_words", "Software", "dpi"),
)


def read_easy_diffusion(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read Easy Diffusion's metadata: in PNG a text for each setting, in EXIF all as JSON."""
    values: Mapping[str, Any] = texts if _EASY in texts else load_object(texts.get("UserComment"))
    if _EASY not in values:
        return None
    fields = Fields(values)
    prompt, negative = fields.text("prompt"), fields.text("negative_prompt")
    fields.move("num_inference_steps", "Steps")
    fields.move("sampler_name", "Sampler", sampler_label)
    fields.move("guidance_scale", "CFG scale")
    fields.move("seed", "Seed")
    fields.put_size(fields.take("width"), fields.take("height"))
    fields.move(_EASY, "Model", lambda path: PureWindowsPath(str(path)).stem)
    fields.move("use_vae_model", "VAE")
    if fields.text("clip_skip").lower() == "true" or values.get("clip_skip") is True:
        fields.put("Clip skip", 2)
    if values.get("init_image") or values.get("init_image_path"):
        fields.put("Denoising strength", values.get("prompt_strength", 0.5))
    fields.drop([*_EASY_HARMLESS, "prompt_strength", "init_image", "init_image_path", "clip_skip"])
    fields.put_others("Easy Diffusion")
    fields.put("Version", "Easy Diffusion")
    text = values.get("UserComment") or "\n".join(f"{name}: {value}" for name, value in values.items())
    return Made(
        program="Easy Diffusion",
        text=text,
        prompt=prompt,
        negative_prompt=negative,
        settings=fields.settings,
    )


def read_draw_things(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read Draw Things' JSON, which stands in XMP."""
    text = texts.get("UserComment", "")
    values = load_object(text)
    if not texts.get("CreatorTool", "").startswith("Draw Things") or "c" not in values:
        return None
    fields = Fields(values)
    prompt, negative = fields.text("c"), fields.text("uc")
    fields.move("steps", "Steps")
    fields.move("sampler", "Sampler")
    fields.move("scale", "CFG scale")
    fields.move("seed", "Seed")
    fields.move("size", "Size")
    fields.move("model", "Model")
    if (strength := fields.take("strength")) not in (None, 1, 1.0):
        fields.put("Denoising strength", strength)
    # Version 2 of the same, which has all settings of the program.
    fields.drop(["v2", "profile"])
    fields.put_others("Draw Things")
    fields.put("Version", "Draw Things")
    return Made(
        program="Draw Things", text=text, prompt=prompt, negative_prompt=negative, settings=fields.settings
    )


def read_civitai(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read `extraMetadata`, which Civitai's generator adds to a graph of ComfyUI: what the user asked for."""
    graph = load_object(texts.get("prompt"))
    extra = graph.get("extraMetadata") or texts.get("extraMetadata")
    values = load_object(extra) if isinstance(extra, str) else extra
    if not isinstance(values, dict) or not values:
        return None
    fields = Fields(values)
    prompt, negative = fields.text("prompt"), fields.text("negativePrompt")
    fields.move("steps", "Steps")
    fields.move("sampler", "Sampler", sampler_label)
    fields.move("cfgScale", "CFG scale")
    fields.move("seed", "Seed")
    fields.put_size(fields.take("width"), fields.take("height"))
    fields.move("baseModel", "Model")
    fields.move("clipSkip", "Clip skip")
    fields.move("resources", "Civitai resources")
    fields.move("transformations", "Transformations")
    fields.drop(["workflowId", "remixOfId", "draft", "nsfw", "quantity", "aspectRatio", "fluxMode"])
    fields.put_others("Civitai")
    fields.put("Version", "Civitai")
    return Made(
        program="Civitai",
        text=texts.get("prompt", ""),
        prompt=prompt,
        negative_prompt=negative,
        settings=fields.settings,
    )
