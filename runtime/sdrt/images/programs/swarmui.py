"""SwarmUI: a JSON object `sui_image_params`, in the text `parameters` or in EXIF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.images.programs.made import Fields, Made, Size, load_object, whole
from sdrt.images.programs.names import comfyui_sampler_label, schedule_label

__all__ = ["read_swarmui"]

_KEY = "sui_image_params"
_PLACES = ("parameters", "UserComment", "comment", "Model")
_HARMLESS = (
    *("swarm_version", "aspectratio", "sidelength", "images", "nopreviews", "imageformat", "automaticvae"),
    *("date", "generation_time", "prep_time", "donotsave", "personalnote", "internalbackendtype"),
    *("wildcardseed", "exactbackendid", "colordepth", "presets", "noseedincrement", "overrideoutpathformat"),
    # Only together with its strength.
    "variationseed",
)


def read_swarmui(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read SwarmUI's JSON. Its backend is ComfyUI, which draws the first noise on the CPU."""
    for place in _PLACES:
        params = load_object(texts.get(place)).get(_KEY)
        if isinstance(params, dict):
            return _made(params, texts[place])
    return None


def _made(params: dict[str, Any], text: str) -> Made:
    fields = Fields(params)
    version = fields.text("swarm_version")
    fields.move("steps", "Steps")
    # SwarmUI leaves them out if the user did not choose them. The usual ones are those of its backend.
    fields.put("Sampler", comfyui_sampler_label(fields.text("sampler", "comfyuisampler") or "euler"))
    fields.put("Schedule type", schedule_label(fields.text("scheduler", "comfyuischeduler") or "normal"))
    fields.move("cfgscale", "CFG scale")
    fields.move("seed", "Seed")
    fields.put_size(fields.take("width"), fields.take("height"))
    fields.move("model", "Model")
    if "initimage" in params:
        fields.drop(["initimage"])
        fields.put("Denoising strength", params.get("initimagecreativity", 0.6))
    fields.drop(["initimagecreativity"])
    fields.move("rescalecfgmultiplier", "CFG rescale")
    fields.move("clipstopatlayer", "Clip skip", _clip_skip)
    fields.move("vae", "VAE")
    _loras(fields)
    fields.put("RNG", "CPU")
    fields.put("Noise scale", "of ComfyUI")
    prompt, negative = fields.text("prompt"), fields.text("negativeprompt")
    fields.drop(_HARMLESS)
    fields.put_others("SwarmUI")
    fields.put("Version", f"SwarmUI {version}".rstrip())
    return Made(
        program="SwarmUI", text=text, prompt=prompt, negative_prompt=negative, settings=fields.settings
    )


def _clip_skip(value: Any) -> object:
    """ComfyUI counts the last layer as -1, A1111 as 1."""
    layer = whole(value)
    return value if layer is None else -layer


def _loras(fields: Fields) -> None:
    names, weights = (_listed(fields.take(name)) for name in ("loras", "loraweights"))
    if names:
        weights += ["1"] * (len(names) - len(weights))
        fields.put(
            "LoRAs", ", ".join(f"{name} ({weight})" for name, weight in zip(names, weights, strict=False))
        )


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",") if one.strip()]
    return [str(one) for one in value] if isinstance(value, list) else []
