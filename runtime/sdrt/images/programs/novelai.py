"""NovelAI: JSON in the text `Comment`, in EXIF, or in the lowest bits of alpha."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sdrt.images.programs.made import Fields, Made, Size, load_object
from sdrt.images.programs.names import sampler_label, schedule_label

__all__ = ["read_novelai"]

_MARKS = frozenset({"uc", "sampler", "scale", "uncond_scale", "v4_prompt"})
_FEWEST_MARKS = 3
_HARMLESS = (
    *("n_samples", "signed_hash", "request_type", "hide_debug_overlay", "version", "legacy_v3_extend"),
    *("extra_passthrough_testing", "v4_negative_prompt", "stream", "deliberate_euler_ancestral_bug"),
    *("add_original_image", "ucPreset", "qualityToggle", "lora_unet_weights", "lora_clip_weights"),
    *("cfg_sched_eligibility", "dynamic_thresholding_percentile", "dynamic_thresholding_mimic_scale"),
    *("uncond_per_vibe", "wonky_vibe_correlation", "controlnet_strength", "prefer_brownian"),
)
_NEUTRAL = {"uncond_scale": 1.0, "cfg_rescale": 0.0, "skip_cfg_below_sigma": 0.0, "legacy": False}
_WEIGHTS = re.compile(r"[{}\[\]]|\d::")


def read_novelai(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read NovelAI's JSON."""
    text = texts.get("Comment") or texts.get("UserComment") or texts.get("comment")
    comment = load_object(text)
    is_named = texts.get("Software", "").startswith("NovelAI")
    if text is None or not comment or not (is_named or len(_MARKS & comment.keys()) >= _FEWEST_MARKS):
        return None
    fields = Fields(comment)
    prompt = fields.text("prompt") or texts.get("Description", "")
    negative = fields.text("uc")
    _put_sampling(fields)
    width, height = fields.take("width"), fields.take("height")
    fields.put_size(width or size[0], height or size[1])
    source = texts.get("Source", "")
    fields.put("Model", source)
    _put_prompts(fields, prompt, negative)
    _put_image(fields)
    fields.drop([*_HARMLESS, *(name for name, neutral in _NEUTRAL.items() if comment.get(name) == neutral)])
    fields.put_others("NovelAI")
    fields.put("Version", "NovelAI")
    return Made(
        program="NovelAI", text=text, prompt=prompt, negative_prompt=negative, settings=fields.settings
    )


def _put_sampling(fields: Fields) -> None:
    fields.move("steps", "Steps")
    fields.move("sampler", "Sampler", lambda name: sampler_label(str(name).removesuffix("_v3")))
    schedule = fields.text("noise_schedule")
    if schedule and schedule != "native":
        fields.put("Schedule type", schedule_label(schedule))
    fields.move("scale", "CFG scale")
    fields.move("seed", "Seed")
    if rescale := fields.take("cfg_rescale"):
        fields.put("CFG rescale", rescale)


def _put_prompts(fields: Fields, prompt: str, negative: str) -> None:
    caption = _caption(fields.take("v4_prompt"))
    characters = [one for one in caption.get("char_captions") or [] if isinstance(one, dict)]
    if characters:
        fields.put("Characters", "; ".join(str(one.get("char_caption", "")) for one in characters))
    if _WEIGHTS.search(f"{prompt} {negative}"):
        fields.put("Weights of words", "of NovelAI")


def _caption(prompt: Any) -> dict[str, Any]:
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    return caption if isinstance(caption, dict) else {}


def _put_image(fields: Fields) -> None:
    """`strength` says that the image was made from another one, to which `noise` was added."""
    strength, noise = fields.take("strength"), fields.take("noise")
    if strength is not None:
        fields.put("Denoising strength", strength)
        if noise:
            fields.put("Extra noise", noise)
