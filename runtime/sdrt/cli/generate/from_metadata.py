"""`--from`: the options that a picture's metadata tells, so that it can be made again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.model_folder.embedded import embedded_names
from sdrt.request.bounds import MAX_SIZE

__all__ = ["settings_of"]


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "Steps": ("steps", int),
    "CFG scale": ("guidance_scale", _finite),
    "Seed": ("seed", int),
    "Sampler": ("scheduler", str),
    "Spacing": ("spacing", str),
    "Eta": ("eta", _finite),
    "Clip skip": ("clip_skip", lambda text: int(text) - 1),
    "Prompt syntax": ("prompt_syntax", str),
    "Denoising strength": ("strength", _finite),
    "Image CFG scale": ("image_guidance_scale", _finite),
    "Noise level": ("noise_level", int),
    "Mask blur": ("mask_blur", _finite),
    "Masked area padding": ("padding_mask_crop", int),
    "Outpaint": ("outpaint", str),
    "CFG rescale": ("guidance_rescale", _finite),
    "Timesteps": ("timesteps", lambda text: tuple(int(part) for part in text.split(","))),
    "Sigmas": ("sigmas", lambda text: tuple(float(part) for part in text.split(","))),
    "Tile size": ("tile_size", int),
    "Tile overlap": ("tile_overlap", int),
    "Hires upscale": ("hires_scale", _finite),
    "Hires steps": ("hires_steps", int),
    "Hires upscaler": ("hires_upscaler", str.lower),
    "Composite": ("no_composite", lambda text: text == "False"),
    "VAE tiling": ("vae_tiling", lambda text: text == "True"),
}
# What says nothing that could be done otherwise.
_SILENT = {
    "Size",
    "Model",
    "Model hash",
    "RNG",
    "Embeddings",
    "Scheduler config",
    "Batch size",
    "Version",
    "Schedule type",
}
_FROM_A_PICTURE = ("Denoising strength", "Image CFG scale", "Noise level", "Outpaint")


def settings_of(name: str, given: set[str]) -> dict[str, Any]:
    """Options, by the names of `Options`, for what is not among those that were `given`.

    Raises:
        RequestError: the file tells nothing, something that is no setting, or of what cannot be made from it alone.
    """
    from sdrt.images.metadata import Parameters, read_parameters

    _, text = read_parameters(Path(name))
    if text is None:
        raise RequestError(
            f"--from {name}: does not say how it was made; expected a picture that sdrt made without --no-metadata"
        )
    found = Parameters.parse(text)
    settings = found.settings
    _check_complete(name, found.settings, given)
    told: dict[str, Any] = {"negative_prompt": found.negative_prompt}
    if "prompts_file" not in given:
        told["prompts"] = (found.prompt,)
    for label, (option, read) in _OPTIONS.items():
        if label in settings:
            told[option] = _read(name, label, settings[label], read)
    if "Hires upscale" in settings and "strength" in told:
        told["hires_strength"] = told.pop("strength")
    if "Schedule type" in settings and settings["Schedule type"] != "Automatic":
        told["scheduler"] = f"{settings.get('Sampler', '')} {settings['Schedule type']}"
    if "Outpaint" not in settings and "Size" in settings:
        told["width"], told["height"] = _size(name, settings["Size"])
    if "Model" in settings:
        told["model"] = settings["Model"]
    if "spacing" in given and "scheduler" in told:
        told["scheduler"] = _without_spacing(told["scheduler"])
    dropped = set(given)
    if given & {"steps", "spacing", "timesteps", "sigmas"}:
        # They say which levels are visited in other words.
        dropped |= {"timesteps", "sigmas"}
    if "scheduler" in given:
        dropped.add("spacing")
    told = {option: value for option, value in told.items() if option not in dropped}
    largest = (
        round(max(told.get("width", 0), told.get("height", 0)) * min(told.get("hires_scale", 1.0), 16)) + 64
    )
    if largest > MAX_SIZE and "max_size" not in given:
        told["max_size"] = largest
    return told


def _without_spacing(scheduler: str) -> str:
    from sdrt.schedulers import SPACING_LABELS

    for label in SPACING_LABELS.values():
        scheduler = scheduler.removesuffix(f" {label}")
    return scheduler


def _check_complete(name: str, settings: Any, given: set[str]) -> None:
    model = settings.get("Model")
    if "model" not in given and model not in (None, *embedded_names()):
        raise RequestError(f"--from {name}: was made by the model {brief(model)}: say where it is with -m")
    from_text = "Hires upscale" in settings
    if "image" not in given and not from_text and any(label in settings for label in _FROM_A_PICTURE):
        raise RequestError(f"--from {name}: was made from a picture: give it with -i")
    if "mask_image" not in given and "Mask blur" in settings and "Outpaint" not in settings:
        raise RequestError(f"--from {name}: was made with a mask: give it with --mask")
    if "Embeddings" in settings and "embeddings" not in given:
        raise RequestError(
            f"--from {name}: was made with {brief(settings['Embeddings'])}: give the files with --embedding"
        )
    if "Scheduler config" in settings and "scheduler" not in given:
        raise RequestError(
            f"--from {name}: was made with {brief(settings['Scheduler config'])}: give the file with --scheduler"
        )
    if settings.get("RNG") != "CPU":
        told = f"its RNG is {brief(settings['RNG'])}" if "RNG" in settings else "it names no RNG"
        raise RequestError(
            f"--from {name}: was made with noise that is not drawn here ({told}, expected CPU): give the options "
            "themselves for one like it"
        )
    if other := [label for label in settings if label not in _OPTIONS and label not in _SILENT]:
        raise RequestError(
            f"--from {name}: says {brief(other[0])}, which is of another program: give the options themselves for a "
            "picture like it"
        )


def _read(name: str, label: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except (ValueError, OverflowError):
        raise RequestError(f"--from {name}: its {label} is {brief(text)}: expected a number") from None


def _size(name: str, text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.strip())
    if found is None:
        raise RequestError(f"--from {name}: its Size is {brief(text)}: expected pixels, such as 512x512")
    return int(found[1]), int(found[2])
