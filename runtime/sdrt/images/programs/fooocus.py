"""Fooocus in its own scheme, and RuinedFooocus: JSON in the text `parameters`, or in EXIF.

Fooocus' other scheme is A1111's text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sdrt.images.programs.made import Fields, Made, Size, load_object, whole
from sdrt.images.programs.names import comfyui_sampler_label, schedule_label

__all__ = ["read_fooocus"]

_PLACES = ("parameters", "UserComment", "comment")
_HARMLESS = (
    *("metadata_scheme", "created_by", "base_model_hash", "refiner_model_hash", "full_prompt"),
    *("full_negative_prompt", "lora_hashes", "styles", "performance", "image_number"),
)
_OF_REFINER = ("refiner_switch", "overwrite_switch", "refiner_swap_method")
_STEPS = {"Quality": 60, "Speed": 30, "Extreme Speed": 8, "Lightning": 4, "Hyper-SD": 4}
"""The steps of each performance, Fooocus's name for a number of steps."""
_PAIR = re.compile(r"(\d+)\D+(\d+)")


def read_fooocus(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read the JSON of Fooocus or RuinedFooocus."""
    for place in _PLACES:
        values = load_object(texts.get(place))
        if values.get("software") == "RuinedFooocus":
            return _ruined(values, texts[place])
        if "base_model" in values and ("guidance_scale" in values or "metadata_scheme" in values):
            return _fooocus(values, texts[place])
    return None


def _fooocus(values: dict[str, Any], text: str) -> Made:
    fields = Fields(values)
    # The prompts with the texts of styles, which the text encoder gets.
    prompt = _joined(fields.take("full_prompt")) or fields.text("prompt")
    negative = _joined(fields.take("full_negative_prompt")) or fields.text("negative_prompt")
    fields.move("steps", "Steps")
    fields.move("sampler", "Sampler", comfyui_sampler_label)
    fields.move("scheduler", "Schedule type", schedule_label)
    fields.move("guidance_scale", "CFG scale")
    fields.move("seed", "Seed")
    if pair := _PAIR.search(str(fields.take("resolution"))[:100]):
        fields.put_size(*pair.groups())
    fields.move("base_model", "Model")
    fields.move("clip_skip", "Clip skip")
    if (vae := fields.text("vae")) and not vae.startswith("Default"):
        fields.put("VAE", vae)
    if (refiner := fields.text("refiner_model")) and refiner != "None":
        _refiner(fields, refiner, values)
    else:
        fields.drop(_OF_REFINER)
    fields.move("sharpness", "Sharpness")
    fields.move("adm_guidance", "ADM Guidance")
    _loras(fields, [name for name in values if name.startswith("lora_combined_")])
    version = fields.text("version")
    fields.drop((*_HARMLESS, "prompt", "negative_prompt"))
    fields.put_others("Fooocus")
    fields.put("Version", version or "Fooocus")
    return Made(
        program="Fooocus", text=text, prompt=prompt, negative_prompt=negative, settings=fields.settings
    )


def _refiner(fields: Fields, refiner: str, values: Mapping[str, Any]) -> None:
    """Read a refiner. It takes over after a number of steps: the user's own, or a share of the performance's steps.

    The sampler continues with it, as sdrt's does, unless there is a swap method. Fooocus does not write the usual one.
    """
    steps, switch = whole(values.get("steps")), whole(values.get("overwrite_switch"))
    share = values.get("refiner_switch")
    if switch is None and steps and isinstance(share, (int, float)) and 0 <= share <= 1:
        switch = round(_STEPS.get(str(values.get("performance")), steps) * share)
    if steps and switch is not None and 0 <= switch < steps:
        fields.put("Refiner switch at", repr(switch / steps))
        fields.put("Refiner switch by sampling steps", "True")
    elif steps and switch is not None and switch >= steps:
        # It never takes over.
        fields.drop(_OF_REFINER)
        return
    fields.put("Refiner", refiner)
    fields.drop(_OF_REFINER[:2] if switch is not None and steps else ())


def _joined(lines: Any) -> str:
    return ", ".join(map(str, lines)) if isinstance(lines, list) else ""


def _loras(fields: Fields, combined: list[str]) -> None:
    """`loras` has names, weights and hashes; before, each was a text "name : weight"."""
    loras = fields.take("loras")
    found = [str(fields.take(name)).replace(" : ", " (", 1) + ")" for name in combined]
    if isinstance(loras, list):
        pairs = [one for one in loras if isinstance(one, (list, tuple)) and len(one) > 1]
        found = [f"{name} ({weight})" for name, weight, *_ in pairs] or found
        found += [f"{one.get('name')} ({one.get('weight')})" for one in loras if isinstance(one, dict)]
    fields.put("LoRAs", ", ".join(found))


def _ruined(values: dict[str, Any], text: str) -> Made:
    fields = Fields(values)
    fields.move("steps", "Steps")
    fields.move("sampler_name", "Sampler", comfyui_sampler_label)
    fields.move("scheduler", "Schedule type", schedule_label)
    fields.move("cfg", "CFG scale")
    fields.move("seed", "Seed")
    fields.put_size(fields.take("width"), fields.take("height"))
    fields.move("base_model_name", "Model")
    fields.move("clip_skip", "Clip skip")
    _loras(fields, [])
    if values.get("denoise") in (1, 1.0, "1", None):
        fields.drop(["denoise"])
    prompt, negative = fields.text("Prompt"), fields.text("Negative")
    fields.drop(["software", "base_model_hash", "start_step"])
    fields.put_others("RuinedFooocus")
    fields.put("Version", "RuinedFooocus")
    return Made(
        program="RuinedFooocus", text=text, prompt=prompt, negative_prompt=negative, settings=fields.settings
    )
