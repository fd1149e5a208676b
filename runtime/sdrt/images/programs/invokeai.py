"""InvokeAI: `invokeai_metadata` since version 3, `sd-metadata` since 1.15, and before that the command `Dream`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sdrt.images.programs.made import Fields, Made, Size, as_text, load_object, whole
from sdrt.images.programs.names import INVOKEAI_SAMPLERS

__all__ = ["read_invokeai"]

_HARMLESS = (
    *("generation_mode", "app_version", "imported_app_version", "seamless_x", "seamless_y", "rand_device"),
    *("positive_style_prompt", "negative_style_prompt", "model_hash", "app_id", "type", "canvas_v2_metadata"),
    *("threshold", "perlin", "variations", "postprocessing", "hires_fix", "seamless", "ref_images"),
    *("hrf_enabled", "hrf_method", "hrf_strength", "strength", "init_image", "dynamicPrompts", "extra"),
)
_WITH_EFFECT = {
    "seamless_x": "Seamless x",
    "seamless_y": "Seamless y",
    "seamless": "Seamless",
    "threshold": "Threshold",
    "perlin": "Perlin noise",
    "variations": "Variations",
    "postprocessing": "Postprocessing",
    "hires_fix": "Hires fix",
    "hrf_enabled": "High resolution fix",
    "positive_style_prompt": "Second prompt",
    "negative_style_prompt": "Second negative prompt",
    "ref_images": "Reference images",
}
_KARRAS = "_k"
_STOCHASTIC = ("_a", "sde", "ddpm", "lcm", "tcd")
_LONGEST_COMMAND = 2000
_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")
_OPTION = re.compile(r"\s-(-?[A-Za-z][\w-]*?)(?:[= ]?(-?\d[\w.]*|[^\s-]\S*))?(?=\s|$)")
_DREAM_LABELS = {"s": "Steps", "S": "Seed", "C": "CFG scale"}
_DREAM_NAMES = {"steps": "s", "seed": "S", "cfg_scale": "C", "width": "W", "height": "H", "sampler": "A"}
_DREAM_EFFECTS = {
    **dict.fromkeys(("G", "gfpgan_strength"), "Face restoration"),
    **dict.fromkeys(("U", "upscale"), "Upscale"),
    **dict.fromkeys(("V", "with_variations"), "Variations"),
    **dict.fromkeys(("v", "variation_amount"), "Variation strength"),
}


def read_invokeai(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read the metadata of any version of InvokeAI."""
    if values := load_object(texts.get("invokeai_metadata")):
        return _of_object(values, texts["invokeai_metadata"])
    if values := load_object(texts.get("sd-metadata")):
        return _of_old_object(values, texts["sd-metadata"])
    for name in ("Dream", "dream"):
        if command := texts.get(name):
            return _of_command(command)
    return None


def _of_object(values: dict[str, Any], text: str) -> Made:
    fields = Fields(values)
    prompt, negative = fields.text("positive_prompt"), fields.text("negative_prompt")
    for same, label in ((prompt, "positive_style_prompt"), (negative, "negative_style_prompt")):
        if values.get(label) == same:
            fields.drop([label])
    _put_sampling(fields, "scheduler")
    fields.put_size(fields.take("width"), fields.take("height"))
    fields.put("Model", _name(fields.take("model")))
    if skip := whole(fields.take("clip_skip")):
        fields.put("Clip skip", skip + 1)
    fields.move("cfg_rescale_multiplier", "CFG rescale", lambda value: value or None)
    fields.put("VAE", _name(fields.take("vae")))
    fields.put("LoRAs", ", ".join(map(_weighted, _list(fields.take("loras")))))
    for name, label in (
        ("controlnets", "ControlNet"),
        ("ipAdapters", "IP Adapter"),
        ("t2iAdapters", "T2I Adapter"),
    ):
        fields.put(label, ", ".join(map(_weighted, _list(fields.take(name)))))
    mode = str(values.get("generation_mode", ""))
    if "img2img" in mode or "paint" in mode or values.get("init_image"):
        fields.put("Denoising strength", values.get("strength", 1))
    if "paint" in mode:
        fields.put("Inpainting", mode)
    fields.put(
        "RNG", {"cpu": "CPU", "cuda": "GPU"}.get(str(values.get("rand_device")), values.get("rand_device"))
    )
    version = fields.text("app_version")
    _put_effects(fields)
    fields.drop(_HARMLESS)
    fields.put_others("InvokeAI")
    return _finished(fields, text, prompt, negative, version)


def _of_old_object(values: dict[str, Any], text: str) -> Made:
    image = values.get("image")
    fields = Fields(image if isinstance(image, dict) else {})
    prompt, negative = _parted(_old_prompt(fields.take("prompt")))
    _put_sampling(fields, "sampler")
    fields.put_size(fields.take("width"), fields.take("height"))
    fields.put("Model", values.get("model_weights"))
    strength, steps = fields.take("strength"), fields.take("strength_steps")
    if fields.text("init_image_path", "init_img") or strength or steps:
        fields.put("Denoising strength", strength or steps)
    # Before version 3 the noise was that of the device.
    fields.put("RNG", "GPU")
    _put_effects(fields)
    fields.drop(_HARMLESS)
    fields.put_others("InvokeAI")
    return _finished(fields, text, prompt, negative, as_text(values.get("app_version")))


def _of_command(command: str) -> Made:
    """The command `"prompt" -s50 -S123 -W512 -H512 -C7.5 -Ak_lms`."""
    quoted, _, rest = command.strip().removeprefix('"').rpartition('"')
    prompt, negative = _parted(quoted or command)
    options = {
        _DREAM_NAMES.get(name.lstrip("-"), name.lstrip("-")): value
        for name, value in _OPTION.findall(rest[:_LONGEST_COMMAND])
    }
    fields = Fields(options)
    for name, label in _DREAM_LABELS.items():
        fields.move(name, label)
    fields.move("A", "Sampler", lambda name: INVOKEAI_SAMPLERS.get(str(name), str(name)))
    fields.put_size(fields.take("W"), fields.take("H"))
    if fields.text("I", "init_img"):
        fields.put("Denoising strength", options.get("f") or options.get("strength") or "0.75")
    fields.put("RNG", "GPU")
    for name, label in _DREAM_EFFECTS.items():
        fields.move(name, label)
    return _finished(fields, command, prompt, negative, "")


def _finished(fields: Fields, text: str, prompt: str, negative: str, version: str) -> Made:
    # InvokeAI scales it as for image to image: by σ, or √(1 − ᾱ), and not by diffusers' `init_noise_sigma`.
    fields.put("Noise scale", "of InvokeAI")
    # InvokeAI weights words with Compel.
    fields.put("Prompt syntax", "compel")
    fields.put("Version", f"InvokeAI {version}".rstrip())
    return Made(
        program="InvokeAI", text=text, prompt=prompt, negative_prompt=negative, settings=fields.settings
    )


def _put_sampling(fields: Fields, scheduler: str) -> None:
    fields.move("steps", "Steps")
    if name := fields.text(scheduler):
        plain = name if name in INVOKEAI_SAMPLERS else name.removesuffix(_KARRAS)
        if any(word in plain for word in _STOCHASTIC):
            fields.put("Fresh noise", "of another seed")
        fields.put("Sampler", INVOKEAI_SAMPLERS.get(plain, name))
        if plain != name and plain in INVOKEAI_SAMPLERS:
            fields.put("Schedule type", "Karras")
    fields.move("cfg_scale", "CFG scale")
    fields.move("seed", "Seed")


def _put_effects(fields: Fields) -> None:
    for name, label in _WITH_EFFECT.items():
        fields.move(name, label, lambda value: value or None)


def _name(model: Any) -> str:
    """The name of a model, which is an object with the name under one of several keys."""
    if not isinstance(model, dict):
        return as_text(model)
    found = (model.get(key) for key in ("model_name", "name", "key"))
    inner = next((model[key] for key in ("model", "lora") if isinstance(model.get(key), dict)), None)
    return next((str(value) for value in found if value), "") or (_name(inner) if inner else "")


def _weighted(one: Any) -> str:
    if not isinstance(one, dict):
        return as_text(one)
    part = next((key for key in one if key.endswith("model") or key in ("lora", "ip_adapter")), "model")
    weight = one.get("weight", one.get("control_weight"))
    return f"{_name(one.get(part)) or _name(one)} ({as_text(weight)})"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _old_prompt(prompt: Any) -> str:
    """A prompt, or a list of weighted ones, of which all but the first were rarely used."""
    if isinstance(prompt, list):
        return " ".join(str(one.get("prompt", "")) for one in prompt if isinstance(one, dict))
    return prompt if isinstance(prompt, str) else ""


def _parted(prompt: str) -> tuple[str, str]:
    """The prompt, and the negative prompt, which stands in square brackets within it."""
    negative = [part.strip(" ,") for part in _NEGATIVE.findall(prompt)]
    return _NEGATIVE.sub("", prompt).strip(), ", ".join(filter(None, negative))
